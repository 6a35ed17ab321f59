"""Progress of a bulk run on the console."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from threading import Lock
from typing import Any, Final, Self

from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from client.bulk.sheet import MAX_IMAGES
from client.bulk.state import Item, RunState
from client.commands.console import ERR, ERRORS, OUT
from client.outputs import printable
from client.thumbnails import side_px, thumbnails
from functions.contracts.object_keys import sidecar_key

_PLAIN_S: Final = 30.0
_MAX_FAILURES: Final = 20
_MAX_NAMED: Final = 5
_ENDED: Final = ("done", "cached", "failed", "not_done")


class BulkProgress:
    """Shows counts, rate, time left and cost of a run: a live line on a terminal, else a line every 30 s.

    Args:
        state: the state of the run.
        cost_usd: returns the cost so far in US dollars; None if it is unknown.
        clock: returns seconds.
        folder: path of the folder as it was given, for the lines of JSON.
        as_json: print images as JSON Lines on standard output.

    Attributes:
        counts: returns the number of images by status.
    """

    def __init__(
        self,
        state: RunState,
        cost_usd: Callable[[Counter[str]], float | None] = lambda _counts: None,
        clock: Callable[[], float] = time.monotonic,
        *,
        folder: str | None = None,
        as_json: bool = False,
    ) -> None:
        self._folder, self._as_json = folder, as_json
        self._state, self._cost_usd, self._clock, self._lock = state, cost_usd, clock, Lock()
        self.counts: Callable[[], Counter[str]] = state.counts
        self._started = self._printed = clock()
        self._before = _ended(state.counts())  # by earlier processes
        self._failures = 0
        self._thumbnails = state.count_thumbnails()
        self._live = Progress(BarColumn(bar_width=20), TextColumn("{task.description}"), console=ERR, transient=True)
        self._task = self._live.add_task("", total=None)

    def __enter__(self) -> Self:
        if ERR.is_terminal and not ERR.quiet and not (self._as_json and OUT.is_terminal):
            self._live.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._live.live.is_started:
            self._live.stop()

    def ended(self, item: Item, data: tuple[bytes | None, bytes] | None) -> None:
        """Print a failed image, and save the thumbnails of a result."""
        if data is not None and (item.review or self._thumbnails < MAX_IMAGES):
            counts = self.counts()
            side = side_px(counts.total() - counts["review"])
            self._state.save_thumbnails(item, thumbnails(*data, side))
            self._thumbnails += 1
        with self._lock:
            if self._as_json:
                OUT.print(json.dumps(to_json(item, self._folder), ensure_ascii=False))
            elif item.status == "failed":
                self._failures += 1
                if self._failures <= _MAX_FAILURES:
                    text = " ".join(part for part in (f"{item.message}.", item.remedy) if part)
                    ERRORS.print(Text.assemble(("failed  ", "red"), f"{item.label}  {text}"))
                if self._failures == _MAX_FAILURES:
                    ERRORS.print("Further failures are not printed.")
        self.progressed()

    def scanned(self, kept: int, changed: Counter[str], replaced: int) -> None:
        """Print how many existing results are kept, and why others are computed again."""
        if kept:
            ERR.print(f"{_count(kept, 'result exists', 'results exist')} already. --overwrite computes all again.")
        if replaced:
            names = ", ".join(name for name, _ in changed.most_common(_MAX_NAMED))
            made = _count(replaced, "result was", "results were")
            ERR.print(f"{made} made with other options ({names}) and will be replaced.", style="yellow")

    def progressed(self) -> None:
        """Show the counts."""
        now = self._clock()
        with self._lock:
            if self._live.live.is_started:
                if now - self._printed < 0.2:
                    return
            elif now - self._printed < _PLAIN_S:
                return
            self._printed = now
            counts = self.counts()
            ended = _ended(counts)
            total = ended + counts["found"] + counts["uploaded"] + counts["ready"] + counts["ready_cached"]
            rate = max(0, ended - self._before) / (now - self._started) if now > self._started else 0.0
            line = status_line(counts, ended, total, rate, self._cost_usd(counts))
            if self._live.live.is_started:
                self._live.update(self._task, description=line, completed=ended, total=total or None)
            else:
                ERR.print(line)


def to_json(item: Item, folder: str | None) -> dict[str, Any]:
    """Return an image as ``--json`` prints it, with the fields of ``pbr process --json``.

    Args:
        item: the image.
        folder: path of the folder as it was given; None for images in S3.
    """
    has_result = item.status in ("done", "cached", "kept")
    local = item.result if item.result and not item.result.startswith("s3://") else None
    failure = {name: getattr(item, name) for name in ("error", "message", "remedy")}
    path = printable(os.path.join(folder, item.path)) if folder else f"s3://{item.bucket}/{item.key}"  # noqa: PTH118
    return {
        "input": path,
        "status": "done" if item.status == "cached" else item.status,
        "result": item.result,
        "sidecar": sidecar_key(local) if local else None,
        "seconds": item.seconds,
        "cached": item.status == "cached" if has_result else None,
        "quality": item.score,
        "review": item.review,
        "reasons": item.reasons.split(", ") if item.reasons else [],
        "error": failure if item.error else None,
    }


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _ended(counts: Counter[str]) -> int:
    return sum(counts[status] for status in _ENDED)


def status_line(counts: Counter[str], ended: int, total: int, rate: float, cost_usd: float | None) -> str:
    """Return the progress of a run as a line.

    Args:
        counts: number of images by status.
        ended: images with an outcome.
        total: all images.
        rate: images with an outcome per second, since this process started.
        cost_usd: cost so far; None if it is unknown.
    """
    if counts["found"] and not ended:
        return f"{counts['uploaded']} of {total} uploaded"
    parts = [f"{ended} of {total}: {counts['done']} done, {counts['cached']} cached, {counts['failed']} failed"]
    if rate > 0:
        parts.append(f"{60 * rate:.0f} per minute")
        parts.append(f"{duration((total - ended) / rate)} left")
    if cost_usd is not None:
        parts.append(dollars(cost_usd))
    return ", ".join(parts)


def dollars(amount: float) -> str:
    """Return an amount as text, with four decimals if it is small."""
    return f"${amount:.2f}" if amount >= 1 else f"${amount:.4f}"


def duration(seconds: float) -> str:
    """Return a duration as a short text, e.g. ``45 s``, ``12 min`` or ``3 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
