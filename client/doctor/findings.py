"""What a check is, and what it finds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from client.resources import Resource
from client.stack import Stack

Result = Literal["ok", "warning", "problem", "not checked"]

RESULTS: Final[tuple[Result, ...]] = ("problem", "warning", "not checked", "ok")
"""All results, the most severe first."""


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        check: name of the check.
        result: ``problem``: images fail, or will; ``warning``: something needs attention; ``not checked``: ``found``
            says why.
        found: what was found.
        remedy: what to do; empty if nothing is.
    """

    check: str
    result: Result
    found: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Patient:
    """The stack to check.

    Attributes:
        stack: the stack.
        resources: its resources, those of nested stacks included.
        templates: returns the local templates by logical ID of the nested stack, "" for the main one; empty outside of
            a clone.
        now: returns the time of this machine, UTC.
    """

    stack: Stack
    resources: Sequence[Resource]
    templates: Callable[[], Mapping[str, Mapping[str, Any]]] = dict
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def of_type(self, kind: str) -> list[Resource]:
        """Return the resources of a type that exist."""
        return [one for one in self.resources if one.type == kind and one.id and one.status != "DELETE_COMPLETE"]

    def parameter(self, name: str, default: str = "") -> str:
        """Return a parameter of the stack; the default if its template does not have it."""
        return self.stack.parameters.get(name, default)

    def number(self, name: str, default: int = 0) -> int:
        """Return a parameter that is a whole number."""
        return int(float(self.parameter(name) or default))

    @property
    def place(self) -> str:
        """Options that select the stack in commands of pbr; empty for the embedded cloud."""
        return self.stack.place

    @property
    def region(self) -> str:
        """Option that selects the Region in commands of AWS; empty for the embedded cloud."""
        return "" if self.stack.endpoint_url else f" --region {self.stack.region}"

    @property
    def restore(self) -> str:
        """How to create deleted resources again."""
        if self.stack.endpoint_url:
            return "pbr restart creates all resources again, and deletes the content of the buckets."
        return (
            "Restore it with a drift-aware change set, see docs/how-to/doctor.md#restore-deleted-resources. Deploying "
            "the same template does not create it again."
        )


@dataclass(frozen=True)
class Check:
    """A check.

    Attributes:
        name: of the check.
        look: yields what it finds.
        only_aws: why it cannot be checked on an embedded cloud; empty if it can.
        permissions: IAM actions that it needs.
    """

    name: str
    look: Callable[[Patient], Iterable[Finding]]
    only_aws: str = ""
    permissions: tuple[str, ...] = ()
