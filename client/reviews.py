"""Reviews of doubtful cut-outs: list them, the worst first, decide, retry with other options, undo and export."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import merge
from typing import Any, Final, Literal, Self, TypeAlias

from client import history
from client.errors import ReviewConflictError, UsageError, sdk_errors
from client.redrive import start_once
from client.stack import Stack
from core.options import Options
from functions.contracts import review as contract
from functions.contracts.dynamodb import from_item
from functions.contracts.history import execution_arn
from functions.contracts.review import State, folder_of, queue, rank
from functions.contracts.spreadsheet import csv_line

Verdict: TypeAlias = Literal["accept", "reject"]

MOST_COUNTED: Final = 1000
"""Largest number that :meth:`Reviews.count` returns."""

_SCANNED: Final = 5000  # reviews read for one page, so that a rare filter does not read a million of them
_SCAN_SIZE: Final = 500
_THREADS: Final = 8
_NAME_CHARS: Final = 24
_STARTS_S: Final = 60  # a retry is recorded before its execution starts
_STAYS: Final = {"preset", "segmentation_host", "model", "precision_level"}
COLUMNS: Final = (
    *("bucket", "key", "decision", "by", "at", "score", "reasons", "model", "precision", "retried_with"),
    *("result_bucket", "result_key", "result_version_id", "cut_out"),
)


@dataclass(frozen=True)
class Filter:
    """Which reviews to list; empty values select all.

    Attributes:
        model: model that made the cut-out.
        reason: a code among the reasons.
        prefix: start of the source's key.
    """

    model: str = ""
    reason: str = ""
    prefix: str = ""

    def expression(self) -> dict[str, Any]:
        """Return the arguments of a ``Query``, without the key condition."""
        values = {"model": self.model, "reasons": self.reason, "source_key": self.prefix}
        forms = {"model": "#model = :model", "reasons": "contains(#reasons, :reasons)"}
        forms["source_key"] = "begins_with(#source_key, :source_key)"
        used = {name: value for name, value in values.items() if value}
        return {
            "names": {f"#{name}": name for name in used},
            "values": {f":{name}": {"S": value} for name, value in used.items()},
            "filter": " AND ".join(forms[name] for name in used),
        }


@dataclass(frozen=True)
class Decision:
    """What a person decided.

    Attributes:
        verdict: accept, reject or retry.
        by: name of the person.
        at: time, ISO 8601.
        options: options of a retry.
    """

    verdict: Literal["accept", "reject", "retry"]
    by: str
    at: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Review:
    """The review of a cut-out.

    Attributes:
        id: its ID.
        state: ``open``; ``retrying`` while an execution makes another cut-out; ``decided``.
        revision: number of changes by people; a change fails if another one came first.
        score: probability that the cut-out is usable, 0 to 1.
        reasons: why it is doubtful, codes of the sidecar.
        model: model that made it.
        facts: ``execution``, ``source``, ``options``, ``result``, ``image`` and ``cache`` of the sidecar.
        sources: bucket and key of each upload with this cut-out, at most 100.
        opened_at: time, ISO 8601.
        rank: position in its queue.
        decision: the decision; None if it is open.
        executions: ARNs of the executions of a retry.
        problem: why the last retry made no other cut-out; empty if it did.
        is_retry: whether a retry made the cut-out.
    """

    id: str
    state: State
    revision: int
    score: float
    reasons: tuple[str, ...]
    model: str
    facts: Mapping[str, Any]
    sources: tuple[tuple[str, str], ...]
    opened_at: str
    rank: str
    decision: Decision | None
    executions: tuple[str, ...]
    problem: str
    is_retry: bool

    @classmethod
    def of_item(cls, item: Mapping[str, Any]) -> Self:
        """Return the review in an item of the table."""
        names = item["names"]["SS"]
        found = from_item({name: value for name, value in item.items() if name != "names"})
        decision = None
        if found.get("verdict"):
            options = json.loads(found.get("retry_options") or "{}")
            decision = Decision(found["verdict"], found["decided_by"], found["decided_at"], options)
        return cls(
            id=found["review_id"],
            state=found["queue"].partition(" ")[0],
            revision=found["revision"],
            score=float(found["score"]),
            reasons=tuple(found["reasons"]),
            model=found["model"],
            facts=json.loads(found["facts"]),
            sources=tuple(sorted((bucket, key) for bucket, key in map(json.loads, names))),
            opened_at=found["opened_at"],
            rank=found["rank"],
            decision=decision,
            executions=tuple(found.get("executions", ())),
            problem=found.get("problem", ""),
            is_retry="retry_of" in found,
        )

    @property
    def key(self) -> str:
        """Key of the source that is shown."""
        key: str = self.facts["source"]["key"]
        return key

    @property
    def folder(self) -> str:
        """Prefix of the keys of the only person who may see it; empty if everyone may."""
        return folder_of(self.key)

    @property
    def precision(self) -> str:
        """Precision level of the cut-out."""
        level: str = self.facts["options"]["precision_level"]
        return level


@dataclass(frozen=True)
class Page:
    """Reviews, and the rank to continue after; None if there are no more."""

    reviews: tuple[Review, ...]
    after: str | None


class Reviews:
    """The reviews that a person may see.

    Args:
        stack: their stack.
        folder: prefix of the person's own uploads on the web page, e.g. ``web/1f3a/``; empty without any.

    Raises:
        StackUnavailableError: the stack was deployed from an earlier template.
    """

    def __init__(self, stack: Stack, folder: str = "") -> None:
        self._stack, self._folder = stack, folder
        self._table = stack.output("ReviewsTable")

    def page(self, state: State, filters: Filter | None = None, *, after: str | None = None, limit: int = 25) -> Page:
        """Return reviews: open ones by score, the worst first; others by the time of the decision, the newest first.

        Args:
            state: of the reviews.
            filters: which of them; None for all.
            after: ``after`` of the previous page; None for the first page.
            limit: most reviews.
        """
        newest_first = state != "open"
        filters = filters or Filter()
        more = {"ScanIndexForward": not newest_first, "Limit": limit + 1 if filters == Filter() else _SCAN_SIZE}
        scans = [self._scan(name, filters, after, more) for name in self._queues(state)]
        found: list[Review] = []
        last: str | None = None
        for position, review in merge(*scans, key=lambda pair: pair[0], reverse=newest_first):
            last = position
            if review is None or len(found) == limit:  # the scan ended early, or there is one more
                return Page(tuple(found), found[-1].rank if review is not None else last)
            found.append(review)
        return Page(tuple(found), None)

    def count(self, state: State, filters: Filter | None = None) -> int:
        """Return the number of reviews, at most :data:`MOST_COUNTED`."""
        total = 0
        for name in self._queues(state):
            for page in self._pages(name, filters or Filter(), Select="COUNT"):
                total += page["Count"]
                if total >= MOST_COUNTED:
                    return MOST_COUNTED
        return total

    def get(self, review_id: str) -> Review | None:
        """Return a review, or None if there is none with this ID that the person may see."""
        item = self._stack.dynamodb.get_item(
            TableName=self._table, Key={"review_id": {"S": review_id}}, ConsistentRead=True
        ).get("Item")
        review = Review.of_item(item) if item else None
        return review if review and review.folder in ("", self._folder) else None

    def decide(self, review: Review, verdict: Verdict, by: str) -> Review:
        """Accept or reject a cut-out, and return the decided review.

        Raises:
            ReviewConflictError: another person decided first.
        """
        return self._close(review, "decided", verdict, by)

    def retry(self, review: Review, changes: Mapping[str, Any], by: str) -> Review:
        """Start an execution that makes another cut-out, and return the review in state ``retrying``.

        Args:
            review: an open one.
            changes: options that replace those of the cut-out.
            by: name of the person.

        Raises:
            InvalidOptionsError: an option is invalid.
            UsageError: the options are those of the cut-out, or the upload is in a bucket that only bulk runs read.
            ReviewConflictError: another person decided first.
        """
        options = self._retry_options(review, changes)
        name = f"review-{hashlib.sha256(review.id.encode()).hexdigest()[:_NAME_CHARS]}-{review.revision}"
        machine, alias = self._stack.outputs["StateMachineArn"], self._stack.output("StateMachineAlias")
        names = [name if number == 0 else f"{name}-{number}" for number in range(len(review.sources))]
        arns = [execution_arn(machine, one) for one in names]
        # The shown upload first: the outcome is its cut-out, and the others wait for it and get it from the cache.
        shown = (review.facts["source"]["bucket"], review.key)
        sources = [shown, *(source for source in review.sources if source != shown)]
        changed = self._close(
            review, "retrying", "retry", by, retry_options={"S": json.dumps(dict(changes))}, executions=_texts(arns)
        )

        def start(name: str, source: tuple[str, str]) -> None:
            given = {"source": {"bucket": source[0], "key": source[1]}, "options": options}
            start_once(self._stack, alias, name, json.dumps(given))

        try:
            start(names[0], sources[0])
            with ThreadPoolExecutor(_THREADS) as pool:
                list(pool.map(start, names[1:], sources[1:]))
        except sdk_errors():
            self._reopen(changed)
            raise
        return changed

    def undo(self, review: Review) -> Review:
        """Open a decided review again, and return it.

        Raises:
            ReviewConflictError: it was changed since, or its retry has started.
        """
        if review.state == "open":
            return review
        if review.decision and review.decision.verdict == "retry":
            raise ReviewConflictError(
                "A retry cannot be undone once it has started",
                field="review",
                value=review.key,
                remedy="Wait for its cut-out, and decide about that.",
            )
        return self._reopen(review)

    def settle(self, reviews: Iterable[Review] | None = None) -> list[tuple[Review, Review]]:
        """Open the reviews of cut-outs that retries have made meanwhile.

        Args:
            reviews: those to look at; None for all that are retrying, at most 100.

        Returns:
            For each retry that ended: its review, and the one to decide next: of the new cut-out, or the same one
            opened again with the ``problem`` of the retry.
        """
        retrying = list(self.page("retrying", limit=100).reviews if reviews is None else reviews)
        with ThreadPoolExecutor(_THREADS) as pool:
            settled = pool.map(self._settle, retrying)
            return [(before, now) for before, now in zip(retrying, settled, strict=True) if now]

    def _settle(self, review: Review) -> Review | None:
        found = history.describe(self._stack, review.executions[0])
        if found and found["status"] == "RUNNING":
            return None
        age = datetime.now(UTC) - datetime.fromisoformat(review.decision.at if review.decision else review.opened_at)
        if found is None and age.total_seconds() < _STARTS_S:
            return None
        try:
            if found is None:
                return self._reopen(review, "The execution of the retry does not exist")
            if found["status"] != "SUCCEEDED":
                return self._reopen(review, f"The retry failed: {_failure_of(found)}")
            document = json.loads(found["output"])
            if document["cache"]["key"] == review.facts["cache"]["key"]:
                return self._reopen(review, "The retry made the same cut-out")
            return self._replace(review, document)
        except ReviewConflictError:  # another session has opened it again
            return self.get(review.id)

    def _replace(self, review: Review, document: dict[str, Any]) -> Review | None:
        """Open the review of a retry's cut-out, whether doubtful or not, and end the retry."""
        opening = contract.opening(document, datetime.now(UTC), retry_of=review.id, others=review.sources)
        # The condition fails if its review has the most sources that it can have.
        with suppress(self._stack.dynamodb.exceptions.ConditionalCheckFailedException):
            self._stack.dynamodb.update_item(TableName=self._table, **opening)
        with suppress(ReviewConflictError):  # another session has ended the retry
            self._update(review, {"queue": {"S": queue("decided", review.folder)}})
        return self.get(opening["Key"]["review_id"]["S"])

    def _retry_options(self, review: Review, changes: Mapping[str, Any]) -> dict[str, Any]:
        before = review.facts["options"]
        options = {name: value for name, value in before.items() if name != "segmentation_host"} | {"preset": None}
        options |= changes
        Options.parse_explicit(options)
        if all(before.get(name) == value for name, value in changes.items()):
            raise UsageError(
                "The retry would make the same cut-out",
                field="options",
                value=", ".join(f"{name}={value}" for name, value in changes.items()),
                remedy="Choose another model or precision.",
            )
        uploads = self._stack.outputs["UploadsBucket"]
        if others := sorted({bucket for bucket, _ in review.sources} - {uploads}):
            raise UsageError(
                "The image is in a bucket that only bulk runs read",
                field="source.bucket",
                value=others[0],
                remedy="Reject the cut-out, export the rejected ones, and run pbr bulk with them.",
            )
        return options

    def _close(self, review: Review, state: State, verdict: str, by: str, **more: Any) -> Review:
        if review.state != "open":
            raise self._conflict(review)
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        decided = {"verdict": verdict, "decided_by": by, "decided_at": now, "rank": rank(now, review.id)}
        values = {name: {"S": value} for name, value in decided.items()}
        return self._update(review, {"queue": {"S": queue(state, review.folder)}, **values, **more})

    def _reopen(self, review: Review, problem: str = "") -> Review:
        values = {"queue": queue("open", review.folder), "rank": rank(review.score, review.id), "problem": problem}
        removed = ("verdict", "decided_by", "decided_at", "retry_options", "executions")
        return self._update(review, {name: {"S": value} for name, value in values.items()}, removed)

    def _update(self, review: Review, values: Mapping[str, Any], removed: Iterable[str] = ()) -> Review:
        """Change a review unless another person has changed it since it was read."""
        removed = list(removed)
        expression = "SET " + ", ".join(f"#{name} = :{name}" for name in values) + ", #revision = :next"
        expression += f" REMOVE {', '.join(f'#{name}' for name in removed)}" if removed else ""
        try:
            answer = self._stack.dynamodb.update_item(
                TableName=self._table,
                Key={"review_id": {"S": review.id}},
                UpdateExpression=expression,
                ConditionExpression="#revision = :seen",
                ExpressionAttributeNames={f"#{name}": name for name in (*values, *removed, "revision")},
                ExpressionAttributeValues={
                    **{f":{name}": value for name, value in values.items()},
                    ":seen": {"N": str(review.revision)},
                    ":next": {"N": str(review.revision + 1)},
                },
                ReturnValues="ALL_NEW",
            )
        except self._stack.dynamodb.exceptions.ConditionalCheckFailedException:
            raise self._conflict(review) from None
        return Review.of_item(answer["Attributes"])

    def _conflict(self, review: Review) -> ReviewConflictError:
        now = self.get(review.id)
        if now and now.decision:
            verb = {"accept": "accepted", "reject": "rejected", "retry": "retried"}[now.decision.verdict]
            message = f"{now.decision.by} has {verb} this cut-out at {now.decision.at[:16].replace('T', ' ')} UTC"
        else:
            message = "The review was changed at the same time"
        return ReviewConflictError(
            message,
            field="review",
            value=review.key,
            remedy="Go on with the next one. To change the decision, open it again in the list of decisions.",
        )

    def _queues(self, state: State) -> list[str]:
        return [queue(state, folder) for folder in dict.fromkeys(("", self._folder))]

    def _scan(
        self, name: str, filters: Filter, after: str | None, more: Mapping[str, Any]
    ) -> Iterator[tuple[str, Review | None]]:
        """Yield the rank and the review of each item; the last review is None if the scan ends early."""
        scanned = 0
        for page in self._pages(name, filters, after, **more):
            for item in page["Items"]:
                yield item["rank"]["S"], Review.of_item(item)
            scanned += page["ScannedCount"]
            if scanned >= _SCANNED and "LastEvaluatedKey" in page:
                yield page["LastEvaluatedKey"]["rank"]["S"], None
                return

    def _pages(self, name: str, filters: Filter, after: str | None = None, **more: Any) -> Iterator[Mapping[str, Any]]:
        expression = filters.expression()
        beyond = {False: " AND #rank < :after", True: " AND #rank > :after"}[more.get("ScanIndexForward", True)]
        rank_name = {"#rank": "rank"} if after else {}
        request: dict[str, Any] = {
            "TableName": self._table,
            "IndexName": contract.INDEX,
            "KeyConditionExpression": "#queue = :queue" + (beyond if after else ""),
            "ExpressionAttributeNames": {
                "#queue": "queue",
                **rank_name,
                **expression["names"],
            },
            "ExpressionAttributeValues": {
                ":queue": {"S": name},
                **({":after": {"S": after}} if after else {}),
                **expression["values"],
            },
            **({"FilterExpression": expression["filter"]} if expression["filter"] else {}),
            **more,
        }
        while True:
            page = self._stack.dynamodb.query(**request)
            yield page
            if "LastEvaluatedKey" not in page:
                return
            request["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def all(self, state: State, filters: Filter | None = None) -> Iterator[Review]:
        """Yield all reviews of a state in the order of :meth:`page`, e.g. to export them."""
        after: str | None = None
        while True:
            page = self.page(state, filters, after=after, limit=_SCAN_SIZE)
            yield from page.reviews
            if page.after is None:
                return
            after = page.after


def to_csv(reviews: Iterable[Review]) -> str:
    """Return decided reviews as CSV, with a row for each source. No cell starts as a formula of a spreadsheet does."""
    rows = ((bucket, key, *_cells(review)) for review in reviews for bucket, key in review.sources)
    return "".join(map(csv_line, [COLUMNS, *rows]))


def to_manifest(reviews: Iterable[Review], changes: Mapping[str, Any], uploads_bucket: str) -> str:
    """Return a manifest, JSON Lines, for a bulk run that processes the sources of reviews again.

    A row has the options of the cut-out that differ from their defaults, without model, precision and preset, and the
    changed ones. So the options of the run, e.g. ``pbr bulk --model``, apply to what is not changed.

    Args:
        reviews: the reviews, e.g. the rejected ones.
        changes: options that replace those of the cut-outs.
        uploads_bucket: bucket that rows need not name.

    Raises:
        InvalidOptionsError: a changed option is invalid.
    """
    Options.parse_explicit(changes)
    defaults = Options().model_dump(mode="json")
    lines = []
    for review in reviews:
        kept = {
            name: value
            for name, value in review.facts["options"].items()
            if name not in _STAYS and value != defaults.get(name)
        }
        for bucket, key in review.sources:
            row = {"key": key, **({"bucket": bucket} if bucket != uploads_bucket else {})}
            lines.append(json.dumps({**row, "options": {**kept, **changes}}, ensure_ascii=False) + "\n")
    return "".join(lines)


def _cells(review: Review) -> tuple[Any, ...]:
    decision, result = review.decision, review.facts["result"]
    changes = " ".join(f"{name}={value}" for name, value in (decision.options if decision else {}).items())
    who = (decision.verdict, decision.by, decision.at) if decision else ("", "", "")
    what = (review.score, " ".join(review.reasons), review.model, review.precision, changes)
    return *who, *what, result["bucket"], result["key"], result["version_id"] or "", review.facts["cache"]["key"]


def _texts(values: Iterable[str]) -> dict[str, Any]:
    return {"L": [{"S": value} for value in values]}


def _failure_of(found: Mapping[str, Any]) -> str:
    """Return why an execution failed, in one line."""
    try:
        cause = json.loads(found.get("cause") or "{}")
        return f"{cause['message']}. {cause['remedy']}"
    except (ValueError, KeyError, TypeError):
        return str(found.get("cause") or found.get("error") or found["status"])
