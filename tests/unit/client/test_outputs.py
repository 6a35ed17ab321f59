import errno
import os
import resource
from pathlib import Path

import pytest

from client.commands.console import error_text
from client.errors import UsageError
from client.jobs import Result
from client.outputs import STDIN, Destination, ImageFile, labels, write
from core.options import OutputFormat

RESULT = Result(b"data", {"result": {"key": "results/x.png"}})


@pytest.mark.parametrize("text", ["cut.png", "cut.PNG", "new/cut.webp", "cut.avif", "cut.jpg", "cut.jpeg", "cut.zip"])
def test_a_known_extension_is_a_file(text: str) -> None:
    assert Destination.parse(text).is_file


@pytest.mark.parametrize("text", [".", "out", "out/", "cut.png/", "v1.2", "my.results", ".png"])
def test_anything_else_is_a_directory(text: str) -> None:
    assert not Destination.parse(text).is_file


def test_an_existing_directory_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    assert not Destination.parse(str(tmp_path / "a.png")).is_file


@pytest.mark.parametrize("text", ["cut.gif", "cut.tiff", "cut.heic"])
def test_other_image_formats_are_rejected(text: str) -> None:
    with pytest.raises(UsageError, match=r"\.webp"):
        Destination.parse(text)


@pytest.mark.parametrize("format_", OutputFormat)
def test_every_format_has_an_extension_for_files(format_: OutputFormat) -> None:
    implied = Destination.parse(f"cut.{format_.extension}").format(None)
    assert implied is not None and implied.extension == format_.extension
    assert Destination.parse(f"cut.{format_.extension}").format(format_) is format_


def test_extension_sets_the_format() -> None:
    assert Destination.parse("cut.webp").format(None) is OutputFormat.WEBP
    assert Destination.parse("cut.JPEG").format(None) is OutputFormat.JPEG
    assert Destination.parse("out/").format(None) is None
    assert Destination.parse("out/").format(OutputFormat.AVIF) is OutputFormat.AVIF


def test_a_contradiction_names_both() -> None:
    with pytest.raises(UsageError, match="--format webp") as caught:
        Destination.parse("a/cut.png").format(OutputFormat.WEBP)
    assert caught.value.value == "a/cut.png"
    assert caught.value.remedy == "Use --out a/cut.webp, or --format png."


def test_a_file_takes_one_result() -> None:
    Destination.parse("cut.png").check(1)
    with pytest.raises(UsageError, match="several results"):
        Destination.parse("cut.png").check(2)


def test_a_file_in_the_way_is_found_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("x")
    for text in ("notes", "notes/", "notes/deeper/out", "notes/cut.png"):
        with pytest.raises(UsageError, match="notes is a file"):
            Destination.parse(f"{tmp_path}/{text}").check(1)
    Destination.parse(f"{tmp_path}/new/deeper").check(3)
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a directory in which even root cannot write")
def test_a_directory_that_is_not_writable_is_found() -> None:
    with pytest.raises(UsageError, match="not writable"):
        Destination.parse("/proc/new/out").check(1)


def test_a_result_does_not_overwrite_its_image(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(b"x")
    with pytest.raises(UsageError, match="overwrite"):
        Destination.parse(f"{tmp_path}/sub/../a.png").check(1, [image])


@pytest.mark.parametrize(
    ("paths", "shown"),
    [
        (["x/y/a.jpg", "b.jpg"], ["a.jpg", "b.jpg"]),
        (["x/a.jpg", "y/a.jpg", "b.jpg"], ["x/a.jpg", "y/a.jpg", "b.jpg"]),
        (["1/x/a.jpg", "2/x/a.jpg"], ["1/x/a.jpg", "2/x/a.jpg"]),
        (["-", "a.jpg"], ["stdin", "a.jpg"]),
        (["/a.jpg", "/x/a.jpg"], ["/a.jpg", "x/a.jpg"]),
    ],
)
def test_labels_are_the_ends_that_differ(paths: list[str], shown: list[str]) -> None:
    assert labels([Path(path) for path in paths]) == shown


def test_labels_resolve_the_parent_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert labels([Path("a.jpg"), Path("../a.jpg")]) == ["here/a.jpg", f"{tmp_path.name}/a.jpg"]


def test_a_file_that_is_given_twice_is_one_image() -> None:
    images = ImageFile.of([Path("a.jpg"), Path("b.jpg"), Path("x/../a.jpg"), STDIN])
    assert [image.path for image in images] == [Path("a.jpg"), Path("b.jpg"), STDIN]


def test_a_name_that_is_not_utf_8_can_be_printed_and_uploaded() -> None:
    [image] = ImageFile.of([Path(os.fsdecode(b"\xff.jpg"))])
    assert image.name == image.label == "\ufffd.jpg"


def test_the_longest_file_names_have_room_for_the_extensions(tmp_path: Path) -> None:
    paths = [Path("é" * 120 + f"{number}.jpg") for number in range(2)]
    names = Destination.parse(f"{tmp_path}/").names(labels(paths))
    assert len(set(names)) == 2
    saved = Destination.parse(f"{tmp_path}/").save(RESULT, names[0])
    saved.comparison_path.write_bytes(b"")
    assert saved.path.read_bytes() == b"data" and saved.sidecar_path.exists()


def test_a_result_of_another_format_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is a \.png file"):
        Destination.parse(f"{tmp_path}/cut.jpg").save(RESULT, "")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_no_temporary_files(tmp_path: Path) -> None:
    destination = Destination.parse(f"{tmp_path}/cut.png")
    destination.save(RESULT, "")
    with pytest.raises(TypeError):
        destination.save(Result(b"new", {**RESULT.sidecar, "not JSON": object()}), "")
    (tmp_path / "cut.png.json").unlink()
    (tmp_path / "cut.png.json").mkdir()  # cannot be replaced by a file
    with pytest.raises(OSError):
        destination.save(Result(b"new", RESULT.sidecar), "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.png", "cut.png.json"]


def test_error_for_a_full_disk_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cup.jpg.png"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # like a full disk, the error has no name of a file
    try:
        with pytest.raises(OSError) as caught:
            write({path: bytes(200)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error_text(caught.value) == f"{os.strerror(errno.EFBIG)}: {path}"
    assert list(tmp_path.iterdir()) == []
