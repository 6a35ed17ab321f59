"""Compares the expected outcome of a run with the inventory. Makes no requests."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from tests.resilience.chaos.inventory import Inventory
from tests.resilience.chaos.plan import Fault, Report


@dataclass(frozen=True)
class Picture:
    """The expected result of an upload without faults."""

    sha256: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Expected:
    """The expected outcome of an upload.

    Attributes:
        key: the upload's object key.
        version: the upload's version ID.
        cache_key: identifies the work.
        outcome: a result or a failure report.
        why: the injected faults; empty if there are none.
    """

    key: str
    version: str
    cache_key: str
    outcome: Picture | Report
    why: str = ""


@dataclass(frozen=True)
class Injected:
    """Injected faults, as far as they explain repeated work and dead letters.

    Attributes:
        masks: by cache key, how many answers of segmentation were lost or may have been lost.
        rubbish: messages that the run itself put into the segmentation queue.
        never: faults that should have occurred and did not, with their subjects.
    """

    masks: Mapping[str, int] = field(default_factory=dict)
    rubbish: frozenset[str] = frozenset()
    never: Collection[tuple[str, Fault]] = ()


@dataclass(frozen=True, order=True)
class Discrepancy:
    """One deviation from the expected account."""

    rule: str
    subject: str
    what: str


ENDED = {"SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"}


def discrepancies(expected: list[Expected], found: Inventory, injected: Injected) -> list[Discrepancy]:
    """Return all deviations, sorted; an empty list if the account adds up."""
    rules = (_outcomes, _contents, _reports, _executions, _claims, _work, _paid, _queues, _did_not_occur)
    return sorted({one for rule in rules for one in rule(expected, found, injected)})


def _outcomes(expected: list[Expected], found: Inventory, _injected: Injected) -> Iterator[Discrepancy]:
    results = Counter((result.key, result.version) for result in found.results)
    reports = Counter((report["source"]["key"], report["source"]["version_id"]) for report in found.reports)
    for upload in expected:
        match results.pop((upload.key, upload.version), 0), reports.pop((upload.key, upload.version), 0):
            case 0, 0:
                yield Discrepancy("lost", upload.key, f"neither result nor report: {upload.why or 'no fault'}")
            case 1, 0:
                if isinstance(upload.outcome, Report):
                    yield Discrepancy("outcome", upload.key, f"a result in spite of {upload.why}")
            case 0, 1:
                if isinstance(upload.outcome, Picture):
                    yield Discrepancy(
                        "outcome", upload.key, f"a report of an upload that has to succeed: {upload.why or 'no fault'}"
                    )
            case count:
                yield Discrepancy("both", upload.key, f"{count[0]} results and {count[1]} reports: {upload.why}")
    for key, version in [*results, *reports]:
        yield Discrepancy("unknown upload", str(key), f"version {version} was never uploaded")
    for key in found.strays:
        yield Discrepancy("stray", key, "a result without a sidecar")


def _contents(expected: list[Expected], found: Inventory, _injected: Injected) -> Iterator[Discrepancy]:
    wanted = {(upload.key, upload.version): upload.outcome for upload in expected}
    for result in found.results:
        picture = wanted.get((result.key, result.version))
        if not isinstance(picture, Picture):
            continue
        if result.size is None:
            yield Discrepancy("wrong result", result.key, "cannot be decoded")
        elif result.size != picture.size:
            yield Discrepancy("wrong result", result.key, f"{result.size} and not {picture.size} pixels")
        elif result.sha256 != picture.sha256:
            yield Discrepancy("wrong result", result.key, "other bytes than without faults")
        if result.stated_sha256 != result.sha256:
            yield Discrepancy("wrong result", result.key, "other bytes than its sidecar states")


def _reports(expected: list[Expected], found: Inventory, _injected: Injected) -> Iterator[Discrepancy]:
    wanted = {(upload.key, upload.version): upload for upload in expected}
    for report in found.reports:
        upload = wanted.get((report["source"]["key"], report["source"]["version_id"]))
        if upload is None or not isinstance(upload.outcome, Report):
            continue
        if report["stage"] not in upload.outcome.stages or report["error"] != upload.outcome.error:
            what = f"{report['stage']}, {report['error']} is not what {upload.why or 'nothing'} makes"
            yield Discrepancy("unjustified report", upload.key, what)
        for part in ("error", "message", "remedy"):
            if not report.get(part):
                yield Discrepancy("unjustified report", upload.key, f"no {part}")


def _executions(expected: list[Expected], found: Inventory, _injected: Injected) -> Iterator[Discrepancy]:
    uploads = {(upload.key, upload.version) for upload in expected}
    started = {(execution.key, execution.version) for execution in found.executions}
    for key, _version in uploads - started:
        yield Discrepancy("execution", key, "none was started")
    for execution in found.executions:
        if execution.status not in ENDED:
            yield Discrepancy("execution", str(execution.key), f"{execution.arn} is {execution.status}")


def _claims(_expected: list[Expected], found: Inventory, _injected: Injected) -> Iterator[Discrepancy]:
    statuses = {execution.arn: execution.status for execution in found.executions}
    for cache_key, owner in found.claims.items():
        yield Discrepancy("claim", cache_key, f"left by {owner}, which is {statuses.get(owner, 'unknown')}")


def _work(expected: list[Expected], found: Inventory, _injected: Injected) -> Iterator[Discrepancy]:
    known = {execution.cache_key for execution in found.executions}
    for key in found.work:
        if not any(key.startswith(prefix) for prefix in found.lifecycle):
            yield Discrepancy("orphan", key, "no lifecycle rule deletes it")
        if key.partition("/")[2].partition("/")[0].partition(".")[0] not in known:
            yield Discrepancy("orphan", key, "no execution worked on it")


def _paid(expected: list[Expected], found: Inventory, injected: Injected) -> Iterator[Discrepancy]:
    """Check that no work is done twice, and that no mask is made without need."""
    owners: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    retaken: Counter[str] = Counter()
    for execution in found.executions:
        if execution.cache_key and execution.owned:
            owners[execution.cache_key] += 1
            failed[execution.cache_key] += execution.status != "SUCCEEDED"
            retaken[execution.cache_key] += found.retaken[execution.arn.rsplit(":", 1)[1]]
        if execution.owned > 1:
            yield Discrepancy("paid twice", str(execution.key), f"claimed {execution.owned} times by {execution.arn}")
        if execution.segmented > max(1, execution.owned):
            yield Discrepancy("paid twice", str(execution.key), f"segmented {execution.segmented} times")
    for cache_key, count in owners.items():
        if count > failed[cache_key] + 1:
            yield Discrepancy("paid twice", cache_key, f"{count} owners, {failed[cache_key]} of them failed")
        explained = count + injected.masks.get(cache_key, 0) + retaken[cache_key]
        if found.masks[cache_key] > explained:
            yield Discrepancy("paid twice", cache_key, f"{found.masks[cache_key]} masks, {explained} explained")
    for cache_key in found.masks.keys() - owners.keys():
        yield Discrepancy("paid twice", cache_key, "a mask without a claim")


def _queues(expected: list[Expected], found: Inventory, injected: Injected) -> Iterator[Discrepancy]:
    if found.waiting:
        yield Discrepancy("queue", "segmentation", f"{found.waiting} messages are left")
    for queue, bodies in found.dead.items():
        for body in bodies:
            if body not in injected.rubbish:
                yield Discrepancy("dead letter", queue, f"{body[:200]}")
    for body in injected.rubbish - set(found.dead.get("SegmentationDeadLetterQueue", [])):
        yield Discrepancy("dead letter", "segmentation", f"missing: {body}")


def _did_not_occur(_expected: list[Expected], _found: Inventory, injected: Injected) -> Iterator[Discrepancy]:
    for subject, fault in injected.never:
        yield Discrepancy("fault did not occur", subject, f"{fault.kind}, {fault.where}")
