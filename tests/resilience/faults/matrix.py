"""Every Task state, every fault that it can have, and how the state machine handles it.

``python -m tests.resilience.faults.matrix`` writes the matrix into docs/explanation/reliability.md.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from core.errors import PermanentError
from tests.conftest import ROOT
from tests.state_machine import ANSWERABLE, DEFINITION, STATES, TASKS, of_a_job, waits_s

DOCUMENT = ROOT / "docs/explanation/reliability.md"
BEGIN, END = "<!-- fault matrix: make reliability-tables -->", "<!-- end of the fault matrix -->"

UNKNOWN = "ZeroDivisionError"
"""An error that the state machine does not name."""

READ_PICTURES = ("Validate", "SegmentOnEcs", "AwaitMask", "SegmentOnLambda", "Refine", "Encode")
"""The states that can fail with every permanent error; the other functions can only be denied access."""

REFUSED = ("InvalidRequestError", "StorageDeniedError")

NO_SUBJECT = ("SegmentOnLambda", "UnknownForegroundError")
"""The failure that makes a state run that only runs for failed jobs."""

FOR_FAILED_JOBS = ("RecordFailure", "ReleaseClaim")

Outcome = Literal["result", "report", "settled"]
"""``settled``: the execution ends without a report, and ReconcileFunction writes it."""


@dataclass(frozen=True)
class Fault:
    """A state's task throws ``error`` in its first attempt, or in all of them if ``lasting``.

    Where there is an ``answer``, JSON text, the task succeeds with that instead.
    """

    state: str
    error: str
    lasting: bool = True
    answer: str = ""

    def __str__(self) -> str:
        return f"{self.state}-{self.error}{self.answer}-{'lasting' if self.lasting else 'once'}"


@dataclass(frozen=True)
class Fate:
    """How the job ends.

    Attributes:
        attempts: how often the task is attempted.
        wait_s: the longest total wait between the attempts.
        then: the state that handles the error; "" if there is none.
        outcome: how the upload ends.
        failed: stage and error of the report.
    """

    attempts: int
    wait_s: float
    then: str
    outcome: Outcome
    failed: tuple[str, str] | None = None

    @property
    def degraded(self) -> bool:
        """Whether the metrics count a failure that did not fail the job."""
        return self.then in {"SegmentOnLambda", "PublishMetrics"}


MALFORMED: dict[str, list[tuple[Any, Outcome, tuple[str, str]]]] = {
    "Validate": [
        ({"Payload": {}}, "settled", ("ClaimWork", "States.Runtime")),
        ({"Payload": "done"}, "settled", ("ClaimWork", "States.Runtime")),
    ],
    "LookUpCache": [({"Item": {}}, "settled", ("CheckOwner", "States.Runtime"))],
    "ServeCached": [({"CopyObjectResult": {}}, "settled", ("DescribeHit", "States.Runtime"))],
    "CheckOwner": [({"Name": "unknown"}, "settled", ("CheckOwner", "States.Runtime"))],
    "SegmentOnEcs": [({"unknown": 1}, "report", ("Refine", "InvalidRequestError"))],
    "SegmentOnSageMaker": [
        ({"Body": "{}"}, "report", ("Refine", "InvalidRequestError")),
        ({"Body": "done"}, "settled", ("SegmentOnSageMaker", "States.Runtime")),
    ],
    "AwaitMask": [({"unknown": 1}, "report", ("Refine", "InvalidRequestError"))],
    "SegmentOnLambda": [
        ({"Payload": {}}, "report", ("Refine", "InvalidRequestError")),
        ({"Payload": "done"}, "report", ("Refine", "InvalidRequestError")),
    ],
    "Refine": [
        ({"Payload": {}}, "report", ("Encode", "InvalidRequestError")),
        ({"Payload": "done"}, "report", ("Encode", "InvalidRequestError")),
    ],
    "Encode": [
        ({"Payload": {}}, "settled", ("Encode", "States.Runtime")),
        ({"Payload": "done"}, "settled", ("Encode", "States.Runtime")),
    ],
    "RecordFailure": [({"Payload": {}}, "settled", NO_SUBJECT)],
}
"""By state: answers that lack required data, with the outcome and the stage and error of the report.

A function fails with its own error. A path that selects nothing fails the execution, and no Catch handles it.
"""

_OUTCOMES: dict[str, Outcome] = {
    "KeepRawInput": "report",
    "RecordFailure": "report",
    "LookUpCache": "result",
    "SecondAttempt?": "report",
    "SegmentOnLambda": "result",
    "TakeOverClaim": "result",
    "WaitedBefore?": "result",
    "DescribeUnrecordedFailure": "settled",
}
"""The outcome by the state that handles the error. Any other continues as if nothing had failed."""


def retrier_of(state: str, error: str) -> dict[str, Any] | None:
    """Return the first of a state's retriers that matches the error. A missed heartbeat is also a timeout."""
    names = {error, "States.Timeout"} if error == "States.HeartbeatTimeout" else {error}
    return next((r for r in TASKS[state]["Retry"] if names & set(r["ErrorEquals"])), None)


def catcher_of(state: str, error: str) -> str:
    """Return the state that handles an error: that of the first Catch that matches."""
    return next(c["Next"] for c in STATES[ANSWERABLE[state]]["Catch"] if {error, "States.ALL"} & set(c["ErrorEquals"]))


def fate_of(fault: Fault) -> Fate:
    """Return how the job ends by the definition of the state machine."""
    usual: Outcome = "report" if fault.state in FOR_FAILED_JOBS else "result"
    usual_failure: tuple[str, str] | None = NO_SUBJECT if usual == "report" else None
    if fault.answer:
        malformed = MALFORMED[fault.state]
        return next(
            Fate(1, 0, "", end, failed) for answer, end, failed in malformed if json.dumps(answer) == fault.answer
        )
    retrier = retrier_of(fault.state, fault.error)
    waits = waits_s(retrier) if retrier else []
    if not fault.lasting:
        return Fate(2, waits[0], "", usual, usual_failure)
    then = catcher_of(fault.state, fault.error)
    outcome = _OUTCOMES.get(then, usual)
    is_decoding = (fault.state, fault.error) == ("Validate", "Sandbox.Timedout")
    own = (ANSWERABLE[fault.state], "DecodingLimitError" if is_decoding else fault.error)
    failure = own if outcome == "report" and usual == "result" else usual_failure
    return Fate(1 + len(waits), sum(waits), then, outcome, failure)


def faults() -> Iterator[Fault]:
    """Yield every fault of every state once."""
    for state in TASKS:
        retried = [error for retrier in TASKS[state]["Retry"] for error in retrier["ErrorEquals"]]
        for error in retried:
            yield Fault(state, error, lasting=False)
        for error in [*retried, *sorted(not_retried(state))]:
            yield Fault(state, error)
        for answer, _, _ in MALFORMED.get(state, []):
            yield Fault(state, "", answer=json.dumps(answer))


def not_retried(state: str) -> set[str]:
    """Return the errors of a state that are not retried."""
    task, errors = TASKS[state], {UNKNOWN, "States.Timeout"}
    errors |= {"Sandbox.Timedout"} if task["Resource"].endswith("lambda:invoke") else set()
    errors |= {error for catcher in STATES[ANSWERABLE[state]]["Catch"] for error in catcher["ErrorEquals"]}
    errors |= {"States.HeartbeatTimeout"} if task["Resource"].endswith("waitForTaskToken") else set()
    if state in READ_PICTURES:
        errors |= of_a_job(PermanentError)
    elif task["Resource"].endswith("lambda:invoke"):
        errors |= set(REFUSED)
    if ANSWERABLE[state] != state and state not in READ_PICTURES:
        errors -= of_a_job(PermanentError)  # of the branch beside it
    return {error for error in errors - {"States.ALL"} if not retrier_of(state, error)}


def is_answer_read(state: str) -> bool:
    """Return whether the state machine reads anything of a task's answer."""
    task, outer = TASKS[state], STATES[ANSWERABLE[state]]
    if "ResultSelector" in task:
        return ".$'" in str(task["ResultSelector"])
    if branches := outer.get("Branches"):
        number = next(n for n, branch in enumerate(branches) if state in branch["States"])
        return bool(task.get("End")) and f"$[{number}]" in str(outer["ResultSelector"])
    if "ResultPath" not in task:
        return True
    where = re.escape(task["ResultPath"]) + r"(?!\w)"
    return len(re.findall(where, str(DEFINITION))) > len(re.findall(rf"'ResultPath': '{where}'", str(DEFINITION)))


# ---- The table


def table() -> str:
    """Return the matrix as a Markdown table: states and errors with the same fate share a row."""
    lines = [
        "| State | Error | Attempts | Waits, at most | Then |",
        "|---|---|---|---|---|",
    ]
    rows: dict[tuple[str, ...], list[str]] = {}
    for state in TASKS:
        for fate, errors in _fates_of(state):
            attempts, wait = str(fate.attempts), f"{fate.wait_s:.0f} s" if fate.wait_s else ""
            states = rows.setdefault((_named(errors), attempts, wait, _told(fate)), [])
            states.append(state)
    for (named, attempts, wait, then), states in rows.items():
        lines.append(f"| {', '.join(states)} | {named} | {attempts} | {wait} | {then} |")
    return "\n".join(lines)


def _fates_of(state: str) -> Iterator[tuple[Fate, list[str]]]:
    found: dict[Fate, list[str]] = {}
    for fault in faults():
        if fault.state != state or not fault.lasting:
            continue
        fate = fate_of(fault)
        if fate.failed and fate.failed[1] == fault.error:
            fate = Fate(fate.attempts, fate.wait_s, fate.then, fate.outcome)
        found.setdefault(fate, []).append(f"answers `{fault.answer}`" if fault.answer else fault.error)
    yield from found.items()


def _named(errors: list[str]) -> str:
    permanent, answers = of_a_job(PermanentError), [error for error in errors if error.startswith("answers")]
    services: dict[str, list[str]] = {}
    for error in sorted(set(errors) - permanent - {UNKNOWN, *answers}, key=errors.index):
        service, _, name = error.rpartition(".")
        services.setdefault(service, []).append(name.removesuffix("Exception"))
    services = {service + ("." if len(names) == 1 else ": "): names for service, names in services.items()}
    named = [f"{service}{', '.join(names)}".lstrip(".: ") for service, names in services.items()]
    ours = sorted(permanent & set(errors))
    if len(ours) > len(permanent) / 2:
        missing = sorted(permanent - set(ours))
        ours = ["any permanent error" + (f" but {', '.join(missing)}" if missing else "")]
    return "; ".join([*named, *ours, *answers, *(["any other"] if UNKNOWN in errors else [])])


def _told(fate: Fate) -> str:
    if fate.outcome == "settled" and fate.failed == NO_SUBJECT:
        return "the execution fails; reconciled with the original error"
    if fate.outcome == "settled":
        return f"the execution fails; reconciled as {' '.join(fate.failed or ())}"
    if fate.failed and not fate.then:
        return f"report of {' '.join(fate.failed)}"
    return {
        "KeepRawInput": "report",
        "LookUpCache": "checks the cache",
        "RecordFailure": "report",
        "SecondAttempt?": "report, or the first attempt's result",
        "SegmentOnLambda": "Lambda takes over",
        "TakeOverClaim": "the claim is taken over and the work repeated",
        "WaitedBefore?": "waits, then checks the cache again",
        "PublishMetrics": "continues, counted as degraded",
        "Outcome?": "continues",
        "DeadLetterNotice": "the webhook is a dead letter",
        "WebhookDelivered?": "continues",
    }[fate.then]


def write() -> None:
    """Replace the table in the document."""
    before, rest = DOCUMENT.read_text().split(BEGIN)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    write()
