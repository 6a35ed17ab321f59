import base64
import html
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image as Picture

from client.bulk import sheet
from client.bulk.state import RunState
from client.bulk.walk import Image
from tests.conftest import disc, file_of

HOSTILE = '<script>alert(1)</script>"onerror="x\u202egpj.jpg'


def state_of(folder: Path, **scores: float) -> RunState:
    """Return a run with results of these scores; those below 0.5 are to be reviewed."""
    state = RunState.create("r", {}, folder)
    state.add("r", [Image(name, 1, 0) for name in scores], None)
    for item in state.items():
        score = scores[item.path]
        result = str(folder / f"out/{item.path}.png")
        state.update(item, status="done", result=result, score=score, review=score < 0.5, reasons="tiny_subject")
        state.save_thumbnail(item, b"thumbnail of " + item.path.encode())
    return state


def written(state: RunState, folder: Path) -> str:
    sheet.write_sheet(state, folder / "sheet.html", "Shoes")
    return (folder / "sheet.html").read_text()


def test_doubtful_results_come_first(tmp_path: Path) -> None:
    page = written(state_of(tmp_path, good=0.99, middle=0.7, bad=0.1, doubtful=0.4), tmp_path)
    assert re.findall(r"<bdi>(.*?)</bdi>", page) == ["bad", "doubtful", "middle", "good"]
    assert page.count("review: tiny subject") == 2


def test_a_figure_has_its_thumbnail_and_a_link_to_its_result(tmp_path: Path) -> None:
    page = written(state_of(tmp_path, **{"a b#1.jpg": 0.9}), tmp_path)
    assert base64.b64encode(b"thumbnail of a b#1.jpg").decode() in page
    assert 'href="out/a%20b%231.jpg.png"' in page


def test_names_are_escaped(tmp_path: Path) -> None:
    state = state_of(tmp_path, **{HOSTILE: 0.2})
    state.add("r", [Image("<b>.jpg", 1, 0)], None)
    [failed] = state.items("found")
    state.fail(failed, ValueError("<i>"))
    page = written(state, tmp_path)
    tags: set[str] = set()

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.add(tag)
            assert not [name for name, _ in attrs if name.startswith("on")]

    Tags().feed(page)
    assert not tags & {"script", "i"} and "<b>.jpg" not in page
    assert html.escape("<script>alert(1)</script>") in page and "\u202e" not in page


def test_the_sheet_has_no_external_resources(tmp_path: Path) -> None:
    page = written(state_of(tmp_path, a=0.2), tmp_path)
    assert "default-src 'none'" in page
    assert all(one.startswith("data:") for one in re.findall(r'src="([^"]*)"', page))
    assert "<link" not in page and "@import" not in page and "url(" not in page


def test_the_size_is_bounded(tmp_path: Path) -> None:
    state = state_of(tmp_path, **{f"{number:02}.jpg": number / 100 for number in range(40)})
    for item in state.items():
        state.save_thumbnail(item, b"x" * 3000)
    sheet.write_sheet(state, tmp_path / "sheet.html", "Shoes", max_bytes=50_000)
    page = (tmp_path / "sheet.html").read_text()
    assert re.findall(r"<bdi>(.*?)</bdi>", page) == [f"{number:02}.jpg" for number in range(12)]
    assert len(page) < 60_000 and "The 28 best are left out." in page


def test_failures_are_listed(tmp_path: Path) -> None:
    state = state_of(tmp_path, a=0.9)
    state.add("r", [Image("broken.jpg", 1, 0)], None)
    [item] = state.items("found")
    state.update(item, status="failed", message="It is damaged", remedy="Save it again.")
    assert "broken.jpg</bdi><td>It is damaged. Save it again." in written(state, tmp_path)


@pytest.mark.parametrize("side", [20, 300])
def test_a_thumbnail_shows_image_and_result_on_a_checkerboard(side: int) -> None:
    cut = Picture.new("RGBA", (side, side // 2), (255, 0, 0, 0))
    cut.paste((255, 0, 0, 255), (0, 0, side // 2, side // 2))
    found = sheet.thumbnail(disc(width=2 * side, height=side), file_of(cut, "PNG"))
    assert found
    picture = Picture.open(io.BytesIO(found)).convert("RGB")
    assert picture.size == (260, 128)
    red, board = picture.getpixel((132 + 64 - 4, 64)), picture.getpixel((132 + 64 + 6, 64))
    assert isinstance(red, tuple) and isinstance(board, tuple)
    assert red[0] > 200 and red[1] < 90
    assert min(board) > 150


@pytest.mark.parametrize("result", [b"", b"PK\3\4", b"\x89PNG\r\n\x1a\n damaged"])
def test_a_result_that_cannot_be_shown_has_no_thumbnail(result: bytes) -> None:
    assert sheet.thumbnail(disc(), result) is None
