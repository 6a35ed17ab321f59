"""Search the executions of a stack by status, start time, object key, name, error and quality.

Step Functions filters by status only. All else needs one DescribeExecution for each execution, which AWS limits to a
few a second. So a search is lazy, describes an execution once, and stops after a number of them until it is continued.
"""

import heapq
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any, Final, Literal

from client import history
from client.history import ExecutionSummary
from client.stack import Stack
from functions.contracts.history import execution_arn
from functions.contracts.object_keys import failure_key, sidecar_keys

STATUSES: Final = ("RUNNING", "SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED")
"""Statuses of an execution."""

FAILED: Final = ("FAILED", "TIMED_OUT", "ABORTED")
"""Statuses of an execution that has ended without a result."""

Quality = Literal["review", "degraded", "cached"]
"""``review``: needs review; ``degraded``: not made as requested; ``cached``: copied from the cache."""

DESCRIBED: Final = 200
"""Executions that a search describes before it stops: AWS allows 300 in a burst, and the state machine needs some."""

_PAGES: Final = 20
_THREADS: Final = 8
CHUNK: Final = 40
"""Executions that are described at the same time."""

_KEPT: Final = 5000  # 1 kB each
_NAME: Final = re.compile(r"[\w.+-]{1,80}")


@dataclass(frozen=True)
class Filter:
    """Which executions to find.

    Attributes:
        statuses: statuses of :data:`STATUSES`.
        since: earliest start time; None for no limit.
        until: latest start time; None for no limit.
        text: part of the object key of the image or of the execution's name, in any case.
        error: part of the class name of the error, in any case.
        quality: what the result must be; None for any, and for executions without result.
        may_see: whether the reader may see an object key. No text matches a key that the reader may not see.
    """

    statuses: tuple[str, ...] = STATUSES
    since: datetime | None = None
    until: datetime | None = None
    text: str = ""
    error: str = ""
    quality: Quality | None = None
    may_see: Callable[[str], bool] = lambda key: True

    @property
    def listed_statuses(self) -> tuple[str, ...]:
        """The statuses that matching executions can have."""
        possible = set(self.statuses)
        possible &= set(FAILED) if self.error else possible
        possible &= {"SUCCEEDED"} if self.quality else possible
        return tuple(status for status in STATUSES if status in possible)

    @property
    def needs_details(self) -> bool:
        """Whether an execution must be described to know whether it matches."""
        return bool(self.text or self.error or self.quality)

    def in_time(self, started_at: datetime) -> bool:
        """Return whether an execution started in the period."""
        return (self.since is None or started_at >= self.since) and (self.until is None or started_at <= self.until)

    def matches(self, one: ExecutionSummary) -> bool:
        """Return whether an execution is wanted."""
        text, key = self.text.casefold(), one.source_key or ""
        return (
            one.status in self.listed_statuses
            and self.in_time(one.started_at)
            and (text in one.name.casefold() or (text in key.casefold() and self.may_see(key)))
            and self.error.casefold() in (one.error or "").casefold()
            and (self.quality is None or self.quality in one.marks)
        )


class Descriptions:
    """Summaries of executions, each one described once. Bounded; thread-safe.

    Args:
        stack: the stack that runs them.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[Any, ...], ExecutionSummary] = OrderedDict()

    def of(self, listed: Sequence[Mapping[str, Any]]) -> list[ExecutionSummary]:
        """Return the summaries of executions in the form of ListExecutions."""
        if not listed:
            return []
        with ThreadPoolExecutor(min(_THREADS, len(listed))) as pool:
            return list(pool.map(self._of, listed))

    def _of(self, listed: Mapping[str, Any]) -> ExecutionSummary:
        # Neither a running execution nor an ended one changes; a redriven one has another status or stop date.
        identity = (listed["executionArn"], listed["status"], listed.get("stopDate"))
        with self._lock:
            if known := self._known.get(identity):
                self._known.move_to_end(identity)
                return known
        try:
            summary = history.summarize(self._stack, listed["executionArn"])
        except self._stack.stepfunctions.exceptions.ExecutionDoesNotExist:  # deleted since it was listed
            summary = history.of_listed(listed)
        with self._lock:
            self._known[identity] = summary
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return summary


class Search:
    """The executions that match a filter, newest first. It lists and describes no more than the caller asks for.

    An execution whose name, or whose image's key, is exactly the text of the filter is found at once and comes first.

    Args:
        stack: the stack to search.
        wanted: which executions to find.
        descriptions: the summaries that are known already.

    Attributes:
        scanned: number of executions that were looked at.
        reached: start time of the oldest one; None if there was none.
        complete: whether all matching executions have been found.
    """

    def __init__(self, stack: Stack, wanted: Filter, descriptions: Descriptions) -> None:
        self.scanned = 0
        self.reached: datetime | None = None
        self.complete = not wanted.listed_statuses
        self._stack, self._wanted, self._descriptions = stack, wanted, descriptions
        self._pages = 0
        self._failure: Exception | None = None
        self._found: list[Mapping[str, Any]] = []
        self._first: set[str] = set()
        # Few executions a page are faster, unless many are skipped.
        self._page_size = 1000 if wanted.until or wanted.needs_details else 100
        self._listed = heapq.merge(
            *(self._list(status) for status in _filters(wanted.listed_statuses)),
            key=lambda one: one["startDate"],
            reverse=True,
        )
        if wanted.text:
            self._find_exact()

    @property
    def found(self) -> int:
        """Number of executions found so far."""
        return len(self._found)

    def find(self, count: int, most: int = DESCRIBED) -> None:
        """Search until the total of found executions reaches ``count``, or ``most`` executions were described.

        Args:
            count: executions to find.
            most: executions to describe at most.

        Raises:
            ClientError: executions could not be listed. The search cannot be continued: start another one.
        """
        if self._failure:
            raise self._failure
        pages, described = self._pages, 0
        while self.found < count and not self.complete and self._pages - pages < _PAGES and described < most:
            size = CHUNK if self._wanted.needs_details else count - self.found
            chunk = [one for one in self._take(size, pages) if one["executionArn"] not in self._first]
            if self._wanted.needs_details:
                described += len(chunk)
                summaries = self._descriptions.of(chunk)
                chunk = [one for one, summary in zip(chunk, summaries, strict=True) if self._wanted.matches(summary)]
            self._found += chunk

    def page(self, number: int, size: int) -> list[ExecutionSummary]:
        """Return one page of the executions that were found.

        Args:
            number: 1 for the first page.
            size: executions on a page.
        """
        return self._descriptions.of(self._found[(number - 1) * size : number * size])

    def _take(self, count: int, pages: int) -> Iterator[Mapping[str, Any]]:
        """Yield the next executions of the period, at most ``count``."""
        while count and self._pages - pages < _PAGES:
            try:
                one = next(self._listed, None)
            except Exception as error:
                self._failure = error  # the listing has ended, but is not complete
                raise
            if one is None or (self._wanted.since and one["startDate"] < self._wanted.since):
                self.complete = True
                return
            self.scanned += 1
            self.reached = one["startDate"]
            if self._wanted.in_time(one["startDate"]):
                count -= 1
                yield one

    def _list(self, status: str | None) -> Iterator[Mapping[str, Any]]:
        chosen: Any = {"statusFilter": status} if status else {}
        for page in self._stack.stepfunctions.get_paginator("list_executions").paginate(
            stateMachineArn=self._stack.outputs["StateMachineArn"],
            PaginationConfig={"PageSize": self._page_size},
            **chosen,
        ):
            self._pages += 1
            yield from page["executions"]

    def _find_exact(self) -> None:
        """Find the executions whose name, or whose image's key, is the text: these need no scan."""
        found = (history.describe(self._stack, arn) for arn in _exact(self._stack, self._wanted.text))
        described = [one for one in found if one]
        summaries = self._descriptions.of(described)
        self._found = [one for one, summary in zip(described, summaries, strict=True) if self._wanted.matches(summary)]
        self._first = {one["executionArn"] for one in self._found}


def _filters(statuses: tuple[str, ...]) -> tuple[str | None, ...]:
    """Return the calls of ListExecutions that list these statuses."""
    return (None,) if statuses == STATUSES else statuses


def _exact(stack: Stack, text: str) -> list[str]:
    """Return the ARNs of the execution with this name, and of those that wrote the documents of this upload."""
    arns = [arn_of(stack, text)] if _NAME.fullmatch(text) else []
    keys = chain([failure_key(text, text)], sidecar_keys(text))
    with ThreadPoolExecutor(_THREADS) as pool:
        documents = list(pool.map(stack.document, keys))
    arns += [
        document["execution"]["id"] for document in documents if document and document["source"].get("key") == text
    ]
    prefix = arn_of(stack, "")  # bulk runs write such documents, too
    return [arn for arn in dict.fromkeys(arns) if arn.startswith(prefix)]


def arn_of(stack: Stack, name: str) -> str:
    """Return the ARN of the execution of this stack with this name."""
    return execution_arn(stack.outputs["StateMachineArn"], name)


def console_url(stack: Stack, execution_arn: str) -> str | None:
    """Return the address of an execution in the AWS console; None on an embedded cloud."""
    if stack.endpoint_url:
        return None
    partition = execution_arn.split(":")[1]
    host = {"aws-us-gov": "console.amazonaws-us-gov.com", "aws-cn": "console.amazonaws.cn"}.get(
        partition, "console.aws.amazon.com"
    )
    return f"https://{host}/states/home?region={stack.region}#/v2/executions/details/{execution_arn}"
