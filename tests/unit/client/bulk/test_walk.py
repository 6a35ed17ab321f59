import os
import re
import resource
import sys
import time
from pathlib import Path

import pytest

from client.bulk.state import RunState, fold, object_key, target_of
from client.bulk.walk import Image, Problem, walk


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def found(folder: Path, **options: list[str]) -> list[str]:
    return [one.path for one in walk(str(folder), **options) if isinstance(one, Image)]


def test_images_of_all_subfolders_are_found_in_order(tmp_path: Path) -> None:
    make(tmp_path, "b.jpg", "a.PNG", "x/c.webp", "x/y/d.heic", "notes.txt", "movie.mp4", "jpg")
    assert found(tmp_path) == ["a.PNG", "b.jpg", "x/c.webp", "x/y/d.heic"]


def test_hidden_files_and_folders_are_skipped(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "._a.jpg", ".trash/b.jpg")
    assert found(tmp_path) == ["a.jpg"]


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (["*.jpg"], [], ["a.JPG", "x/b.jpg"]),
        (["x/*"], [], ["x/b.jpg", "x/c.png"]),
        (["*.raw"], [], ["x/d.raw"]),
        ([], ["x"], ["a.JPG"]),
        ([], ["x/*.png"], ["a.JPG", "x/b.jpg"]),
        (["*.jpg"], ["A*"], ["x/b.jpg"]),
    ],
)
def test_globs_select_files(tmp_path: Path, include: list[str], exclude: list[str], expected: list[str]) -> None:
    make(tmp_path, "a.JPG", "x/b.jpg", "x/c.png", "x/d.raw")
    assert found(tmp_path, include=include, exclude=exclude) == expected


def test_links_are_followed_and_cycles_are_not(tmp_path: Path) -> None:
    make(tmp_path, "in/x/a.jpg", "other/b.jpg")
    (tmp_path / "in/x/up").symlink_to(tmp_path / "in")
    (tmp_path / "in/y").symlink_to(tmp_path / "other")
    (tmp_path / "in/z").symlink_to(tmp_path / "other")
    (tmp_path / "in/c.jpg").symlink_to(tmp_path / "other/b.jpg")
    (tmp_path / "in/self.jpg").symlink_to("self.jpg")
    everything = list(walk(str(tmp_path / "in")))
    assert [one.path for one in everything if isinstance(one, Image)] == ["c.jpg", "x/a.jpg", "y/b.jpg"]
    assert [one.path for one in everything if isinstance(one, Problem)] == ["self.jpg"]


def test_the_folder_of_the_results_is_skipped(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "out/a.jpg.png")
    assert found(tmp_path, skip=[str(tmp_path / "out")]) == ["a.jpg"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "x/b.jpg")
    (tmp_path / "x").chmod(0)
    try:
        one, problem = walk(str(tmp_path))
    finally:
        (tmp_path / "x").chmod(0o700)
    assert one.path == "a.jpg" and isinstance(problem, Problem) and problem.path == "x"


def test_pipes_are_skipped(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    assert found(tmp_path) == []


def test_results_of_names_that_differ_only_in_case_or_normal_form_are_separate(tmp_path: Path) -> None:
    state = RunState.create("r", {}, tmp_path)
    names = ["A.jpg", "a.jpg", "b.jpg", "x/\u00e9.jpg", "x/e\u0301.jpg", "X/f.jpg", "x/f.jpg"]
    state.add("r", [Image(name, 1, 0) for name in names], None)
    targets = {item.path: item.target for item in state.items()}
    assert targets["b.jpg"] == "b.jpg"
    assert len({fold(target) for target in targets.values()}) == len(names)
    assert targets["A.jpg"].startswith("A-") and targets["A.jpg"].endswith(".jpg")


def test_results_of_names_that_differ_only_in_the_extension_are_separate_with_a_suffix(tmp_path: Path) -> None:
    state = RunState.create("r", {}, tmp_path)
    state.add("r", [Image(name, 1, 0) for name in ("a.jpg", "a.png", "b.jpg")], "-cutout")
    targets = [item.target for item in state.items()]
    assert targets[2] == "b-cutout" and len(set(targets)) == 3


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("x/a b.jpg", "bulk/r/x/a b.jpg"),
        ("\u00e9.jpg", "bulk/r/\u00e9.jpg"),
        (os.fsdecode(b"\xff.jpg"), r"bulk/r/~/[0-9a-f]{64}\.jpg"),
        ("a\n.png", r"bulk/r/~/[0-9a-f]{64}\.png"),
        ("x" * 800, r"bulk/r/~/[0-9a-f]{64}"),
    ],
    ids=["plain", "accent", "bytes", "control", "long"],
)
def test_keys_are_paths_or_hashes(path: str, key: str) -> None:
    assert re.fullmatch(key, object_key("r", path))


def test_a_suffix_replaces_the_extension() -> None:
    assert target_of("x/a.b.jpg", "-cut") == "x/a.b-cut"
    assert target_of("x/a.b.jpg", None) == "x/a.b.jpg"


@pytest.mark.slow
def test_200_000_files_in_one_folder_take_little_time_and_memory(tmp_path: Path) -> None:
    for number in range(200_000):
        os.close(os.open(tmp_path / f"photo-{number:06}.jpg", os.O_CREAT | os.O_WRONLY))
    before_kb, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    state = RunState.create("r", {}, tmp_path)
    state.add("r", walk(str(tmp_path)), None)
    assert state.counts()["found"] == 200_000
    assert time.monotonic() - started < 60
    factor = 1024 if sys.platform == "linux" else 1
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) * factor < 300e6
