import errno
import json
import os
from pathlib import Path

import pytest

from client.errors import DiskFullError, JobTimeoutError, StackUnavailableError, UsageError
from client.watch import Watcher, locked
from core.errors import CorruptImageError

BROKEN = CorruptImageError("It is damaged", field="image", value="a", remedy="Save it again.")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def settled(folder: Path, **names: bytes) -> tuple[Watcher, Clock]:
    """Return a watcher whose files are complete."""
    for name, data in names.items():
        (folder / f"{name}.jpg").write_bytes(data)
    clock = Clock()
    watcher = Watcher(folder, clock=clock)
    assert watcher.complete() == []
    clock.now += 2
    return watcher, clock


def names(watcher: Watcher) -> list[str]:
    return [image.path for image in watcher.complete()]


def test_a_file_is_complete_after_it_has_not_changed_for_a_while(tmp_path: Path) -> None:
    watcher, clock = settled(tmp_path, a=b"1", b=b"1")
    (tmp_path / "b.jpg").write_bytes(b"12")
    assert names(watcher) == ["a.jpg"]
    clock.now += 1.9
    assert names(watcher) == ["a.jpg"]
    clock.now += 0.2
    assert names(watcher) == ["a.jpg", "b.jpg"]


def test_a_change_of_the_time_alone_is_a_change(tmp_path: Path) -> None:
    watcher, _ = settled(tmp_path, a=b"1")
    os.utime(tmp_path / "a.jpg", (1, 1))
    assert names(watcher) == []


@pytest.mark.parametrize(
    "name",
    [
        "a.jpg.part",
        "a.jpg.crdownload",
        ".a.jpg.Xy12Ab",
        "Unconfirmed 123.crdownload",
        "~a.jpg",
        "a.tmp",
        "a.txt",
        "done/a.jpg",
        "failed/a.jpg",
    ],
)
def test_temporary_and_other_files_are_ignored(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"1")
    watcher, _ = settled(tmp_path)
    assert names(watcher) == []


def test_files_move_to_done_with_their_folder(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    watcher, _ = settled(tmp_path, **{"x/a": b"1"})
    [image] = watcher.complete()
    assert watcher.reserve(image) == "x/a.jpg"
    assert watcher.finish(image) == tmp_path / "done/x/a.jpg"
    assert (tmp_path / "done/x/a.jpg").read_bytes() == b"1" and names(watcher) == []


def test_failed_files_move_with_the_reason(tmp_path: Path) -> None:
    watcher, _ = settled(tmp_path, a=b"1")
    [image] = watcher.complete()
    assert watcher.finish(image, BROKEN) == tmp_path / "failed/a.jpg"
    reason = json.loads((tmp_path / "failed/a.jpg.json").read_text())
    assert reason["error"] == "CorruptImageError" and reason["remedy"] == "Save it again."


def test_a_second_file_of_the_same_name_replaces_nothing(tmp_path: Path) -> None:
    for data in (b"1", b"2", b"3"):
        watcher, _ = settled(tmp_path, a=data)
        [image] = watcher.complete()
        watcher.reserve(image)
        watcher.finish(image)
    found = {path.name: path.read_bytes() for path in (tmp_path / "done").iterdir()}
    assert found == {"a.jpg": b"1", "a-2.jpg": b"2", "a-3.jpg": b"3"}


def test_files_at_the_same_time_have_different_names(tmp_path: Path) -> None:
    (tmp_path / "done").mkdir()
    (tmp_path / "done/a.jpg").write_bytes(b"0")
    watcher, _ = settled(tmp_path, **{"a": b"1", "a-2": b"2"})
    images = watcher.complete()
    reserved = [watcher.reserve(image) for image in images]
    assert len(set(reserved)) == 2 and "a.jpg" not in reserved
    assert [str(watcher.finish(image)) for image in images] == [str(tmp_path / "done" / name) for name in reserved]


def test_a_file_that_changes_meanwhile_stays(tmp_path: Path) -> None:
    watcher, clock = settled(tmp_path, a=b"1")
    [image] = watcher.complete()
    (tmp_path / "a.jpg").write_bytes(b"12")
    assert watcher.finish(image) is None and watcher.finish(image, BROKEN) is None
    assert (tmp_path / "a.jpg").exists() and names(watcher) == []
    clock.now += 2
    assert names(watcher) == ["a.jpg"]


@pytest.mark.parametrize(
    "error",
    [
        JobTimeoutError("It hangs", field="f", value="v", remedy="Wait."),
        StackUnavailableError("It is away", field="f", value="v", remedy="Wait."),
        ConnectionError("reset"),
    ],
)
def test_a_file_stays_after_a_transient_error_and_is_tried_again(tmp_path: Path, error: Exception) -> None:
    watcher, clock = settled(tmp_path, a=b"1")
    [image] = watcher.complete()
    assert watcher.finish(image, error) is None
    assert names(watcher) == []
    clock.now += 30
    assert names(watcher) == ["a.jpg"]


def test_a_full_disk_ends_it_and_the_file_stays(tmp_path: Path) -> None:
    watcher, _ = settled(tmp_path, a=b"1")
    [image] = watcher.complete()
    with pytest.raises(DiskFullError, match="start pbr watch again"):
        watcher.finish(image, OSError(errno.ENOSPC, "No space left on device", "out/a.png"))
    assert (tmp_path / "a.jpg").exists()


def test_after_a_restart_files_that_are_still_there_are_processed(tmp_path: Path) -> None:
    watcher, _ = settled(tmp_path, a=b"1")
    [image] = watcher.complete()
    watcher.reserve(image)  # killed here
    again, _ = settled(tmp_path)
    assert again.complete() == [image] and again.reserve(image) == "a.jpg"


def test_a_folder_is_watched_by_one_process(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(UsageError, match="Another process"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass
