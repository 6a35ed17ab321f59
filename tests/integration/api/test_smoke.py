"""``make smoke`` on a deployed stack."""

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, Final

import pytest

from client import api_keys
from client.stack import Stack
from infrastructure import smoke
from tests.conftest import client
from tests.integration.api.test_forget import mentions
from tests.unit.template.test_delivery import GIVEN, PATH, allowed
from tests.unit.template.test_template import Stack as Template

pytestmark = pytest.mark.slow  # the API's tests send the same requests

SERVICES: Final = {"monitoring": "cloudwatch"}
"""Prefix of a service's actions, if it is not the name of its endpoint."""

S3_ACTIONS: Final = {
    "DeleteObjects": "DeleteObjectVersion",
    "GetBucketNotificationConfiguration": "GetBucketNotification",
    "HeadObject": "GetObject",
    "ListObjectsV2": "ListBucket",
    "ListObjectVersions": "ListBucketVersions",
}
"""Actions of S3, if they have not the name of the operation."""


def test_both_ways_to_send_an_image_are_checked_and_nothing_is_left(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", str(stack.endpoint_url))
    smoke.main(["--stack", stack.name, "--region", stack.region])
    printed = capsys.readouterr().out
    assert [line.split(" (")[0] for line in printed.splitlines() if not line.startswith(" ")] == [
        "ok     image through S3",
        "ok     image through the API",
        "ok     doctor",
        "ok     deletion",
    ]
    assert "model classical" in printed
    check_that_nothing_is_left(stack)


def test_a_failed_check_fails_the_run_and_the_rest_is_still_checked_and_deleted(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    unreachable = replace(stack, outputs={**stack.outputs, "ApiUrl": "http://127.0.0.1:9"})
    assert not smoke.Smoke(unreachable).run()
    printed = capsys.readouterr().out
    assert "FAILED image through the API" in printed
    assert "ok     image through S3" in printed and "ok     deletion" in printed
    check_that_nothing_is_left(stack)


def test_the_role_that_deploys_may_do_what_the_check_does(stack: Stack) -> None:
    used: set[tuple[str, str]] = set()

    def record(params: dict[str, Any], model: Any, **_: Any) -> None:
        service = model.service_model.signing_name
        name = S3_ACTIONS.get(model.name, model.name) if service == "s3" else model.name
        version = "Version" if name == "GetObject" and "VersionId" in params else ""
        keys = [params["Key"]] if service == "s3" and "Key" in params else []
        keys += [one["Key"] for one in params.get("Delete", {}).get("Objects", [])]
        action = f"{SERVICES.get(service, service)}:{name}{version}"
        used.update((action, f"arn:aws:s3:::{params['Bucket']}/{key}") for key in keys)
        if not keys:
            used.add((action, ""))

    def recorded(service: str) -> Any:
        made = client(service, str(stack.endpoint_url), stack.region)
        made.meta.events.register("provide-client-params", record)
        return made

    place = {"region": stack.region, "endpoint_url": stack.endpoint_url}
    smoke.Smoke(Stack.connect(stack.name, **place, client=recorded)).run()
    granted = list(allowed(Template({**GIVEN, "StackPrefix": stack.name}, PATH), "DeployRole"))
    assert len(used) > 20
    used.remove(("sts:GetCallerIdentity", ""))  # needs no permission
    assert [
        (action, key)
        for action, key in used
        if not any(fnmatchcase(action, one) and (not key or fnmatchcase(key, arn)) for one, arn, _ in granted)
    ] == []


def check_that_nothing_is_left(stack: Stack) -> None:
    keys = [key for key in api_keys.list_keys(stack, smoke.now()) if key.record.name == smoke.KEY_NAME]
    assert keys and {key.status for key in keys} == {"revoked"}
    assert mentions(stack, smoke.FOLDER, *(f"api/{key.record.key_id}/" for key in keys)) == []
