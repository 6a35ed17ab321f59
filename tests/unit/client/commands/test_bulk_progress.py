from collections import Counter
from pathlib import Path

import pytest

from client.bulk.state import RunState
from client.bulk.walk import Image
from client.commands.bulk_progress import BulkProgress, duration, status_line
from tests.conftest import disc


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min"), (3599, "1 h 0 min"), (11_100, "3 h 5 min")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_line_has_counts_rate_time_left_and_cost() -> None:
    counts = Counter(done=80, cached=15, failed=5, uploaded=100)
    line = status_line(counts, 100, 200, 0.5, 0.0123)
    assert line == "100 of 200: 80 done, 15 cached, 5 failed, 30 per minute, 3 min left, $0.0123"
    assert status_line(Counter(found=3, uploaded=7), 0, 10, 0.0, None) == "7 of 10 uploaded"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_without_a_terminal_a_line_is_printed_every_30_s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, clock = RunState.create("r", {}, tmp_path), Clock()
    state.add("r", [Image(f"{number}.jpg", 1, 0) for number in range(4)], None)
    items = list(state.items())
    with BulkProgress(state, clock=clock) as progress:
        for number, item in enumerate(items):
            clock.now = 10.0 * number + 1
            state.update(item, status="done")
            progress.ended(item, None)
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert lines == ["4 of 4: 4 done, 0 cached, 0 failed, 8 per minute, 0 s left"]


def test_failures_are_printed_up_to_a_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = RunState.create("r", {}, tmp_path)
    state.add("r", [Image(f"{number:02}.jpg", 1, 0) for number in range(30)], None)
    progress = BulkProgress(state)
    for item in list(state.items()):
        state.update(item, status="failed", message="It is damaged", remedy="Save it again.")
    for item in state.items():
        progress.ended(item, None)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "failed  00.jpg  It is damaged. Save it again."
    assert len(lines) == 21 and lines[-1] == "Further failures are not printed."


def test_thumbnails_of_results_are_saved(tmp_path: Path) -> None:
    state = RunState.create("r", {}, tmp_path)
    state.add("r", [Image("a.jpg", 1, 0)], None)
    [item] = state.items()
    BulkProgress(state).ended(item, (disc(), disc()))
    found = state.thumbnails(item)
    assert [data[8:12] for data in (found.original, found.result) if data] == [b"WEBP", b"WEBP"]
