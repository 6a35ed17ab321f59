"""Resources of a deployed stack, those of its nested stacks included."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Final

from client.stack import Stack

_NESTED: Final = "AWS::CloudFormation::Stack"
_THREADS: Final = 8


@dataclass(frozen=True)
class Resource:
    """A resource of a stack.

    Attributes:
        stack: name or ARN of its stack, which is a nested one for some.
        logical_id: its name in the template.
        type: its type, e.g. ``AWS::Logs::LogGroup``.
        id: its name, URL or ARN, depending on the type.
        status: e.g. ``UPDATE_COMPLETE``.
        reason: why it has this status, e.g. after a failed update; empty if CloudFormation does not say.
    """

    stack: str
    logical_id: str
    type: str
    id: str
    status: str
    reason: str


def read(stack: Stack) -> list[Resource]:
    """Return all resources of a stack. Nested stacks come before their own resources."""
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(_of(stack, stack.name))
        nested = [one.id for one in found if one.type == _NESTED and one.id]
        return [*found, *chain.from_iterable(pool.map(lambda name: list(_of(stack, name)), nested))]


def _of(stack: Stack, name: str) -> Iterator[Resource]:
    for page in stack.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=name):
        for one in page["StackResourceSummaries"]:
            yield Resource(
                stack=name,
                logical_id=one["LogicalResourceId"],
                type=one["ResourceType"],
                id=one.get("PhysicalResourceId", ""),  # a failed creation has none
                status=one["ResourceStatus"],
                reason=one.get("ResourceStatusReason", ""),
            )
