import fnmatch
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded_cloud.api_calls import Call
from embedded_cloud.policies import DeniedError, Grant, Permissions, UnsupportedPolicyError

READ = Call("s3:GetObject", "arn:aws:s3:::photos/cups/1.png")


def permissions(*statements: dict[str, Any]) -> Permissions:
    return Permissions([{"Version": "2012-10-17", "Statement": list(statements)}])


def allow(action: Any, resource: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource}


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("s3:GetObject", "arn:aws:s3:::photos/cups/1.png"),
        ("s3:Get*", "arn:aws:s3:::photos/*"),
        ("S3:getobject", "*"),
        ("*", "arn:aws:s3:::photos/cups/?.png"),
        (["s3:PutObject", "s3:GetObject"], ["arn:aws:s3:::work/*", "arn:aws:s3:::photos/*"]),
    ],
)
def test_a_call_is_allowed_by_a_statement_that_matches(action: Any, resource: Any) -> None:
    grant = permissions(allow(action, resource)).check(READ)
    assert grant.action in action and grant.resource in resource


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("s3:GetObjectVersion", "*"),
        ("s3:Get", "*"),
        ("s3:GetObject", "arn:aws:s3:::photos"),
        ("s3:GetObject", "arn:aws:s3:::photos/dogs/*"),
        ("s3:GetObject", "arn:aws:s3:::Photos/*"),
    ],
)
def test_a_call_that_no_statement_matches_is_denied(action: str, resource: str) -> None:
    with pytest.raises(DeniedError, match=r"because no identity-based policy allows the s3:GetObject action"):
        permissions(allow(action, resource)).check(READ)


def test_a_deny_prevails() -> None:
    deny = {"Effect": "Deny", "Action": "s3:*", "Resource": "*"}
    with pytest.raises(DeniedError, match="with an explicit deny in an identity-based policy"):
        permissions(allow("s3:*", "*"), deny).check(READ)


def test_an_action_without_resources_needs_every_resource() -> None:
    call = Call("cloudwatch:GetMetricData", "*")
    assert permissions(allow("cloudwatch:GetMetricData", "*")).check(call) == Grant("cloudwatch:GetMetricData", "*")
    with pytest.raises(DeniedError):
        permissions(allow("cloudwatch:GetMetricData", "arn:aws:cloudwatch:*")).check(call)


def test_a_condition_is_an_error_only_where_a_call_depends_on_it() -> None:
    conditional = {**allow("s3:PutObject", "*"), "Condition": {"StringLike": {"s3:prefix": "a"}}}
    both = permissions(conditional, allow("s3:GetObject", "*"))
    assert both.check(READ)
    with pytest.raises(UnsupportedPolicyError, match="condition"):
        both.check(Call("s3:PutObject", READ.resource))


def test_an_unknown_element_is_an_error() -> None:
    with pytest.raises(UnsupportedPolicyError, match="NotAction"):
        permissions({"Effect": "Allow", "NotAction": "s3:PutObject", "Resource": "*"})


def test_grants_are_each_action_on_each_resource() -> None:
    assert permissions(allow(["a:B", "a:C"], ["x", "y"])).grants == (
        Grant("a:B", "x"),
        Grant("a:B", "y"),
        Grant("a:C", "x"),
        Grant("a:C", "y"),
    )


@given(st.text("ab*?.[\n", max_size=6), st.text("ab.[\n", max_size=6))
def test_wildcards_match_as_those_of_a_shell(pattern: str, text: str) -> None:
    expected = fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))
    try:
        permissions(allow("a:B", pattern)).check(Call("a:B", text))
    except DeniedError:
        assert not expected
    else:
        assert expected
