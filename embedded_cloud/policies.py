"""Decide by its policies whether a role may make a call, as IAM does.

moto's own evaluation ignores resources. Conditions are not evaluated: a call that depends on one is an error.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from embedded_cloud.api_calls import Call

_ELEMENTS: Final = {"Sid", "Effect", "Action", "Resource", "Condition"}


@dataclass(frozen=True)
class Grant:
    """An action and a resource of a statement that allows calls. Both may contain wildcards."""

    action: str
    resource: str


class DeniedError(Exception):
    """The role does not allow the call."""

    def __init__(self, call: Call, reason: str) -> None:
        super().__init__(f"{call.action} on {call.resource}: {reason}")
        self.call, self.reason = call, reason


class UnsupportedPolicyError(Exception):
    """A policy has an element that is not evaluated."""


@dataclass(frozen=True)
class _Statement:
    grants: tuple[Grant, ...]
    allows: bool
    condition: Any

    def match(self, call: Call) -> Grant | None:
        """Return the first action and resource that match a call."""
        for grant in self.grants:
            if _pattern(grant.action.lower()).fullmatch(call.action.lower()) and _pattern(grant.resource).fullmatch(
                call.resource
            ):
                return grant
        return None


class Permissions:
    """What a role may do.

    Args:
        documents: the role's policies.

    Attributes:
        grants: what the policies allow, in their order.
    """

    def __init__(self, documents: Iterable[Mapping[str, Any]]) -> None:
        self._statements = [
            _statement(statement) for document in documents for statement in _listed(document["Statement"])
        ]
        self.grants = tuple(grant for statement in self._statements if statement.allows for grant in statement.grants)

    def check(self, call: Call) -> Grant:
        """Return the first grant that allows a call.

        Raises:
            DeniedError: a statement denies the call, or none allows it.
            UnsupportedPolicyError: the decision depends on a condition.
        """
        matching = [(found, statement) for statement in self._statements if (found := statement.match(call))]
        for _, statement in matching:
            if statement.condition:
                raise UnsupportedPolicyError(
                    f"The embedded cloud does not evaluate the condition {statement.condition}"
                )
            if not statement.allows:
                raise DeniedError(call, "with an explicit deny in an identity-based policy")
        if not matching:
            raise DeniedError(call, f"because no identity-based policy allows the {call.action} action")
        return matching[0][0]


def _statement(statement: Mapping[str, Any]) -> _Statement:
    if unknown := statement.keys() - _ELEMENTS:
        raise UnsupportedPolicyError(f"The embedded cloud does not evaluate {', '.join(sorted(unknown))} in policies")
    return _Statement(
        grants=tuple(
            Grant(action, resource)
            for action in _listed(statement["Action"])
            for resource in _listed(statement["Resource"])
        ),
        allows=statement["Effect"] == "Allow",
        condition=statement.get("Condition"),
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(re.escape(text).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL)
