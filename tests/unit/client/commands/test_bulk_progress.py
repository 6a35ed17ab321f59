import json
from collections import Counter
from pathlib import Path

import pytest

from client.batch import Outcome
from client.bulk.state import RunState
from client.bulk.walk import Image
from client.commands.bulk_progress import BulkProgress, duration, status_line, to_json
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


def test_json_has_a_line_per_image_with_the_fields_of_pbr_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = RunState.create("r", {}, tmp_path)
    state.add("r", [Image(name, 1, 0) for name in ("Zoë.jpg", "broken.jpg")], None)
    good, broken = state.items()
    facts = {"result": "/out/Zoë.jpg.png", "score": 0.3, "review": True, "reasons": "holes, tiny_subject"}
    state.update(good, status="cached", seconds=0.5, **facts)
    state.update(broken, status="failed", error="CorruptImageError", message="It is damaged", remedy="Save it again.")
    progress = BulkProgress(state, folder="photos/", as_json=True)
    for item in state.items():
        progress.ended(item, None)
    printed = capsys.readouterr()
    found = [json.loads(line) for line in printed.out.splitlines()]
    assert found[0] == {
        "input": "photos/Zoë.jpg",
        "status": "done",
        "result": "/out/Zoë.jpg.png",
        "sidecar": "/out/Zoë.jpg.png.json",
        "seconds": 0.5,
        "cached": True,
        "quality": 0.3,
        "review": True,
        "reasons": ["holes", "tiny_subject"],
        "error": None,
    }
    assert found[1]["status"] == "failed" and found[1]["cached"] is None and found[1]["sidecar"] is None
    assert found[1]["error"] == {
        "error": "CorruptImageError",
        "message": "It is damaged",
        "remedy": "Save it again.",
    }
    assert set(found[0]) <= set(Outcome(label="a", input="a").to_json())
    assert printed.err == ""


def test_images_in_s3_are_named_by_their_address_in_json(tmp_path: Path) -> None:
    state = RunState.create("r", {}, tmp_path)
    state.add_objects([{"path": "a.jpg", "bucket": "b", "key": "x/a.jpg", "target": "a.jpg", "status": "done"}])
    [item] = state.items()
    state.update(item, result="s3://results/a.png")
    found = to_json(next(state.items()), None)
    assert (found["input"], found["result"], found["sidecar"]) == ("s3://b/x/a.jpg", "s3://results/a.png", None)


def test_results_that_are_kept_or_replaced_are_mentioned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = BulkProgress(RunState.create("r", {}, tmp_path))
    progress.scanned(1, Counter(), 0)
    progress.scanned(0, Counter(crop=3, quality=1), 3)
    assert capsys.readouterr().err.splitlines() == [
        "1 result exists already. --overwrite computes all again.",
        "3 results were made with other options (crop, quality) and will be replaced.",
    ]
