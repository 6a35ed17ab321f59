"""The message about failed images and active alarms, in plain text for mail readers."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from functions.digest.alarms import ActiveAlarm
from functions.digest.reports import Failures, Group
from functions.runtime.subject import MAX_SUBJECT_CHARS

MAX_BYTES: Final = 250_000
"""SNS accepts 256 KB."""

_MAX_GROUPS: Final = 50
_MARGIN: Final = timedelta(days=1)  # pbr counts --since back from the time when it is called
_MAX_NAME_CHARS: Final = 200
_MAX_TEXT_CHARS: Final = 400
_CUT: Final = "\n[This message was too long and ends here.]\n"


@dataclass(frozen=True)
class Digest:
    """What has happened since the last digest.

    Attributes:
        stack: name of the stack.
        place: options of ``pbr`` that name the stack; empty on an embedded cloud.
        region: AWS Region of the stack.
        results_bucket: bucket of the failure reports.
        since: start of the window of time.
        until: its end.
        failures: images that failed.
        lost_uploads: uploads that the sweep found.
        reviews: results that wait for review.
        more_reviews: whether there may be more.
        alarms: the stack's alarms that are in the state ALARM.
    """

    stack: str
    place: str
    region: str
    results_bucket: str
    since: datetime
    until: datetime
    failures: Failures
    lost_uploads: int
    reviews: int
    more_reviews: bool
    alarms: tuple[ActiveAlarm, ...]

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to report."""
        return self.failures.count > 0 or self.lost_uploads > 0 or len(self.alarms) > 0

    @property
    def subject(self) -> str:
        """A subject that SNS accepts: printable ASCII, less than 100 characters."""
        facts = [f"{_images(self.failures.count)} failed"] if self.failures.count else []
        if self.lost_uploads:
            facts.append(f"{_uploads(self.lost_uploads)} lost and started")
        if self.alarms:
            facts.append(f"{_count(len(self.alarms), 'alarm')} active")
        text = ", ".join(facts)
        return f"{self.stack[: MAX_SUBJECT_CHARS - len(text) - 2]}: {text}"

    @property
    def text(self) -> str:
        """The message."""
        text = "\n".join(self._lines()) + "\n"
        encoded = text.encode()
        if len(encoded) <= MAX_BYTES:
            return text
        return encoded[: MAX_BYTES - len(_CUT)].decode(errors="ignore") + _CUT

    def _lines(self) -> Iterator[str]:
        window = f"from {self.since:%Y-%m-%d %H:%M} to {self.until:%Y-%m-%d %H:%M} UTC"
        yield f"Stack {self.stack}, {window}"
        if self.alarms:
            yield "\nAlarms in the state ALARM, and their sections of the runbook:"
        for alarm in self.alarms:
            yield f"  - {alarm.name}, since {alarm.since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
            yield f"    {_printable(alarm.runbook, _MAX_TEXT_CHARS)}"
        yield f"\n{_images(self.failures.count)} failed."
        if not self.failures.complete:
            yield "There may be more: not all failure reports could be listed in time."
        for group in self.failures.groups[:_MAX_GROUPS]:
            yield from _lines_of(group)
        if others := self.failures.groups[_MAX_GROUPS:]:
            yield f"\n{_images(sum(group.count for group in others))} failed with {len(others)} other errors."
        if self.failures.unread:
            yield f"\n{_images(self.failures.unread)} more, whose reports were not read."
        if self.failures.count:
            yield from self._commands()
        if self.lost_uploads:
            yield f"\n{_uploads(self.lost_uploads)} had neither a result nor a failure report. The sweep started them."
            yield "List their keys:"
            yield (
                f"  aws logs filter-log-events --region {self.region} --log-group-name /aws/lambda/{self.stack}-sweep "
                f"--start-time {math.floor(self.since.timestamp()) * 1000} --filter-pattern '\"lost upload\"'"
            )
        if self.reviews:
            more = "or more " if self.more_reviews else ""
            yield f"\nResults that wait for review: {self.reviews} {more}(web page: Review)"

    def _commands(self) -> Iterator[str]:
        hours = math.ceil((self.until - self.since + _MARGIN) / timedelta(hours=1))
        last = f"{self.until + _MARGIN:%Y-%m-%d %H:%M} UTC"
        yield f"\n--since {hours}h includes them until {last}. Later, add the time since then."
        yield "List them:"
        yield f"  pbr history --status failed --since {hours}h{self.place}"
        yield "Retry those that can succeed now (first with --dry-run):"
        yield f"  pbr redrive --failed --since {hours}h{self.place}"
        yield f"Report of each image: s3://{self.results_bucket}/failed/<key>.json"


def _lines_of(group: Group) -> Iterator[str]:
    yield f"\n{group.count} x {_printable(group.error, _MAX_NAME_CHARS)}"
    yield f"  Why: {_most_common(group.messages)}"
    yield f"  What to do: {_most_common(group.remedies)}"
    for key in group.examples:
        yield f"  - {_printable(key, _MAX_NAME_CHARS)}"
    if group.count > len(group.examples):
        yield f"  - and {group.count - len(group.examples)} more"


def _most_common(texts: Counter[str]) -> str:
    return _printable(texts.most_common(1)[0][0], _MAX_TEXT_CHARS)


def _printable(text: str, limit: int) -> str:
    """Return a text in one line, with escapes for characters that a mail reader does not show."""
    shown = "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in text)
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."


def _images(count: int) -> str:
    return _count(count, "image")


def _uploads(count: int) -> str:
    return _count(count, "upload")


def _count(count: int, thing: str) -> str:
    return f"1 {thing}" if count == 1 else f"{count:,} {thing}s"
