import base64
import html
import io
import re
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import numpy as np
import pytest
from pi_heif import register_heif_opener
from PIL import Image as Picture

from client.bulk import sheet
from client.bulk.state import RunState
from client.bulk.walk import Image
from client.thumbnails import Thumbnails, thumbnails
from tests.conftest import disc, file_of

HOSTILE = '<script>alert(1)</script>"onerror="x\u202egpj.jpg'


def state_of(folder: Path, **scores: float) -> RunState:
    """Return a run with results of these scores; those below 0.5 are to be reviewed."""
    state = RunState.create("r", {"folder": str(folder / "photos"), "options": {"format": "png"}}, folder)
    state.add("r", [Image(name, 1, 0) for name in scores], None)
    for item in state.items():
        score = scores[item.path]
        result = str(folder / f"out/{item.path}.png")
        state.update(item, status="done", result=result, score=score, review=score < 0.5, reasons="tiny_subject")
        state.save_thumbnails(item, Thumbnails(b"original " + item.path.encode(), b"result " + item.path.encode()))
    return state


def written(state: RunState, folder: Path) -> str:
    sheet.write_sheet(state, folder / "sheet.html", "Shoes")
    return (folder / "sheet.html").read_text()


def tags_of(page: str) -> list[tuple[str, dict[str, str | None]]]:
    tags = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append((tag, dict(attrs)))

    Tags().feed(page)
    return tags


def attributes(page: str, tag: str, name: str) -> list[str]:
    return [str(given[name]) for found, given in tags_of(page) if found == tag]


def test_doubtful_results_come_first(tmp_path: Path) -> None:
    page = written(state_of(tmp_path, good=0.99, middle=0.7, bad=0.1, doubtful=0.4), tmp_path)
    assert re.findall(r"<bdi>(.*?)</bdi>", page) == ["bad", "doubtful", "middle", "good"]
    assert page.count("To review: the subject is very small") == 2


@pytest.mark.parametrize(
    "name", ["a b#1.jpg", "x/100%.jpg", "a:b?.jpg", "'\"<b>&amp;.jpg", "Zoë 写真.jpg", "new\nline.jpg"]
)
def test_a_figure_shows_original_and_result_with_links_to_the_files(tmp_path: Path, name: str) -> None:
    page = written(state_of(tmp_path, **{name: 0.9}), tmp_path)
    links = [urljoin(f"{tmp_path.as_uri()}/sheet.html", one) for one in attributes(page, "a", "href")]
    files = [Path(unquote(urlsplit(link).path)) for link in links]
    assert files == [tmp_path / "photos" / name, tmp_path / f"out/{name}.png", tmp_path / f"out/{name}.png"]
    pictures = [base64.b64decode(one.partition(",")[2]).decode() for one in attributes(page, "img", "src")]
    assert pictures == [f"original {name}", f"result {name}"]


def test_a_run_that_was_interrupted_after_a_result_shows_it(tmp_path: Path) -> None:
    state = RunState.create("r", {"folder": str(tmp_path), "options": {}}, tmp_path)
    (tmp_path / "a.jpg").write_bytes(disc())
    (tmp_path / "a.png").write_bytes(disc())
    state.add("r", [Image("a.jpg", 1, 0), Image("b.jpg", 1, 0)], None)
    for item in state.items():
        state.update(item, status="done", result=str(tmp_path / item.path.replace("jpg", "png")), score=0.9)
    page = written(state, tmp_path)
    assert attributes(page, "img", "alt") == ["Original: a.jpg", "Result: a.jpg"]


def test_results_that_were_kept_are_shown(tmp_path: Path) -> None:
    state = state_of(tmp_path, a=0.9, b=0.2)
    for item in state.items():
        state.update(item, status="kept")
    page = written(state, tmp_path)
    assert re.findall(r"<bdi>(.*?)</bdi>", page) == ["b", "a"] and "2 results, 1 to review, 0 failed" in page


def test_names_are_escaped(tmp_path: Path) -> None:
    state = state_of(tmp_path, **{HOSTILE: 0.2})
    state.add("r", [Image("<b>.jpg", 1, 0)], None)
    [failed] = state.items("found")
    state.fail(failed, ValueError("<i>"))
    page = written(state, tmp_path)
    tags = tags_of(page)
    assert not [name for _, given in tags for name in given if name.startswith("on")]
    assert not {tag for tag, _ in tags} & {"script", "i", "b.jpg"} and "<b>.jpg" not in page
    assert html.escape("<script>alert(1)</script>") in page and "\u202e" not in page


def test_the_sheet_has_no_external_resources(tmp_path: Path) -> None:
    page = written(state_of(tmp_path, a=0.2), tmp_path)
    assert "default-src 'none'" in page
    assert all(one.startswith("data:") for one in re.findall(r'src="([^"]*)"', page))
    assert "<link" not in page and "@import" not in page and "url(" not in page


def test_the_size_is_bounded(tmp_path: Path) -> None:
    state = state_of(tmp_path, **{f"{number:02}.jpg": number / 100 for number in range(40)})
    for item in state.items():
        state.save_thumbnails(item, Thumbnails(b"x" * 1500, b"x" * 1500))
    sheet.write_sheet(state, tmp_path / "sheet.html", "Shoes", max_bytes=50_000)
    page = (tmp_path / "sheet.html").read_text()
    assert re.findall(r"<bdi>(.*?)</bdi>", page) == [f"{number:02}.jpg" for number in range(12)]
    assert len(page) < 60_000 and "The 28 best are left out." in page


def test_failures_are_listed(tmp_path: Path) -> None:
    state = state_of(tmp_path, a=0.9)
    state.add("r", [Image("broken.jpg", 1, 0)], None)
    [item] = state.items("found")
    state.update(item, status="failed", message="It is damaged", remedy="Save it again.")
    page = written(state, tmp_path)
    assert '<a href="photos/broken.jpg"><bdi>broken.jpg</bdi></a>: It is damaged. Save it again.' in page


@pytest.mark.parametrize("side", [20, 300])
def test_thumbnails_show_image_and_result_with_its_transparency(side: int) -> None:
    cut = Picture.new("RGBA", (side, side // 2), (255, 0, 0, 0))
    cut.paste((255, 0, 0, 255), (0, 0, side // 2, side // 2))
    original, result = opened(thumbnails(disc(width=2 * side, height=side), file_of(cut, "PNG"), 128))
    expected = min(side, 128)
    assert original.size == (min(2 * side, 128), min(side, 64))
    assert (result.mode, result.size) == ("RGBA", (expected, expected // 2))
    left, right = (result.getpixel((expected * share // 4, expected // 4)) for share in (1, 3))
    assert isinstance(left, tuple) and isinstance(right, tuple)
    assert left[0] > 200 and left[1] < 90 and left[3] > 200 and right[3] < 30


def test_originals_that_browsers_do_not_show_have_thumbnails() -> None:
    photo = Picture.open(io.BytesIO(disc(width=300, height=200))).convert("RGB")
    deep = Picture.fromarray(np.full((200, 300), 30_000, np.uint16))
    register_heif_opener()
    for file in (file_of(photo, "HEIF"), file_of(photo, "TIFF"), file_of(deep, "TIFF"), file_of(photo, "BMP")):
        assert opened(thumbnails(file, file))[0].size == (256, 171)


def test_a_zip_is_shown_with_its_alpha() -> None:
    alpha = Picture.new("L", (64, 32), 255)
    alpha.paste(0, (0, 0, 32, 32))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("color.jpg", file_of(Picture.new("RGB", (64, 32), "red"), "JPEG"))
        archive.writestr("alpha.png", file_of(alpha, "PNG"))
    _, result = opened(thumbnails(disc(), buffer.getvalue()))
    left, right = result.getpixel((8, 16)), result.getpixel((56, 16))
    assert isinstance(left, tuple) and isinstance(right, tuple) and left[3] < 30 and right[3] > 200


@pytest.mark.parametrize("damaged", [b"", b"PK\3\4", b"\x89PNG\r\n\x1a\n damaged", None])
def test_what_cannot_be_shown_has_no_thumbnail(tmp_path: Path, damaged: bytes | None) -> None:
    whole = disc(width=64, height=64)
    assert thumbnails(damaged, whole).original is None and thumbnails(whole, damaged).result is None
    state = state_of(tmp_path, a=0.2)
    [item] = state.items()
    state.save_thumbnails(item, thumbnails(damaged, whole))
    page = written(state, tmp_path)
    assert "No preview of the original" in page and len(attributes(page, "img", "src")) == 1


def opened(found: Thumbnails) -> list[Picture.Image]:
    assert found.original and found.result
    return [Picture.open(io.BytesIO(data)) for data in (found.original, found.result)]
