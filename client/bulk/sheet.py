"""The contact sheet of a bulk run: one HTML file without external resources, doubtful results first."""

import base64
import html
import io
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from client.bulk.state import Item, RunState
from client.outputs import write

if TYPE_CHECKING:
    from PIL import Image

MAX_IMAGES: Final = 10_000
"""Most images on a sheet: each takes about 6 kB of the file."""

_SIDE_PX: Final = 128
_GAP_PX: Final = 4
_SQUARE_PX: Final = 8
_QUALITY: Final = 40
_MAX_BYTES: Final = 64 * 1024 * 1024
_MAX_FAILURES: Final = 1000

_STYLE: Final = """
body { font: 14px system-ui, sans-serif; margin: 1.5rem; color: #222; background: #fff }
main { display: grid; grid-template-columns: repeat(auto-fill, 284px); gap: 12px }
figure { margin: 0; padding: 11px; border: 1px solid #ddd; border-radius: 6px; content-visibility: auto;
  contain-intrinsic-size: 260px 190px }
figure.review { border-color: #c60; background: #fff8f0 }
img { width: 260px; height: 128px; display: block; background: #eee }
figcaption { margin-top: 6px; overflow-wrap: anywhere }
small { color: #666 } .review small b { color: #a40 }
td { padding: 2px 12px 2px 0; vertical-align: top; overflow-wrap: anywhere }
"""


def thumbnail(original: bytes, result: bytes) -> bytes | None:
    """Return original and result side by side as a small WebP, or None if one of them cannot be shown."""
    from PIL import Image, ImageOps

    try:
        opened = Image.open(io.BytesIO(original))
        opened.draft("RGB", (2 * _SIDE_PX, 2 * _SIDE_PX))
        before = ImageOps.exif_transpose(opened).convert("RGBA")
        after = Image.open(io.BytesIO(result)).convert("RGBA")
        sheet = Image.new("RGB", (2 * _SIDE_PX + _GAP_PX, _SIDE_PX), "white")
        for number, picture in enumerate((before, after)):
            picture.thumbnail((_SIDE_PX, _SIDE_PX), Image.Resampling.BOX)
            left = number * (_SIDE_PX + _GAP_PX) + (_SIDE_PX - picture.width) // 2
            place = left, (_SIDE_PX - picture.height) // 2
            board = _checkerboard(picture.width, picture.height)
            board.paste(picture, (0, 0), picture)
            sheet.paste(board, place)
        encoded = io.BytesIO()
        sheet.save(encoded, "WEBP", quality=_QUALITY, method=4)
    except (OSError, ValueError, Image.DecompressionBombError):  # a zip, or HEIC, which Pillow cannot read by itself
        return None
    return encoded.getvalue()


def write_sheet(state: RunState, path: Path, title: str, max_bytes: int = _MAX_BYTES) -> None:
    """Write the contact sheet of a run.

    Args:
        state: the state of the run.
        path: of the HTML file.
        title: its title.
        max_bytes: size of the figures after which the others are left out.
    """
    parts, size = [], 0
    for item in itertools.islice(state.by_quality(), MAX_IMAGES):
        if size >= max_bytes:
            break
        parts.append(_figure(item, path, state.thumbnail(item)))
        size += len(parts[-1])
    counts = state.counts()
    left_out = counts["done"] + counts["cached"] - len(parts)
    heading = (
        f"{counts['done'] + counts['cached']} results, {counts['review']} to review, {counts['kept']} kept, "
        f"{counts['failed'] + counts['not_done']} failed"
    )
    page = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; ',
        "style-src 'unsafe-inline'\">",
        f'<meta name="viewport" content="width=device-width"><title>{_text(title)}</title><style>{_STYLE}</style>',
        f"</head><body><h1>{_text(title)}</h1><p>{heading}. Doubtful results come first.",
        f" The {left_out} best are left out." if left_out else "",
        "</p>",
        *_failures(state),
        "<main>",
        *parts,
        "</main></body></html>\n",
    ]
    write({path: "".join(page).encode(errors="replace")})


def _failures(state: RunState) -> Iterator[str]:
    counts = state.counts()
    if count := counts["failed"] + counts["not_done"]:
        yield f"<details open><summary>{count} failed</summary><table>"
        for item in itertools.islice(state.items("failed", "not_done"), _MAX_FAILURES):
            yield f"<tr><td><bdi>{_text(item.label)}</bdi><td>{_text(item.message or '')}. {_text(item.remedy or '')}"
        yield "</table></details>"


def _figure(item: Item, sheet: Path, picture: bytes | None) -> str:
    name = f"<bdi>{_text(item.label)}</bdi>"
    if item.result and not item.result.startswith("s3://"):
        relative = os.path.relpath(item.result, sheet.parent)
        name = f'<a href="{html.escape(quote(os.fsencode(relative)))}">{name}</a>'
    image = ""
    if picture:
        data = base64.b64encode(picture).decode()
        image = f'<img alt="" loading="lazy" decoding="async" src="data:image/webp;base64,{data}">'
    score = "" if item.score is None else f"quality {item.score:.2f}"
    reasons = _text((item.reasons or "").replace("_", " "))
    notes = f"<small>{score}{f' <b>review: {reasons}</b>' if item.review else ''}</small>"
    kind = ' class="review"' if item.review else ""
    return f"<figure{kind}>{image}<figcaption>{name}<br>{notes}</figcaption></figure>\n"


def _text(text: str) -> str:
    """Escape text, and replace characters that are not visible, e.g. those that change the direction of writing."""
    return html.escape("".join(one if one.isprintable() else "\ufffd" for one in text))


def _checkerboard(width: int, height: int) -> "Image.Image":
    from PIL import Image

    tile = Image.new("L", (2 * _SQUARE_PX, 2 * _SQUARE_PX), 255)
    for left, top in ((_SQUARE_PX, 0), (0, _SQUARE_PX)):
        tile.paste(204, (left, top, left + _SQUARE_PX, top + _SQUARE_PX))
    board = Image.new("RGB", (width, height))
    for top in range(0, height, 2 * _SQUARE_PX):
        for left in range(0, width, 2 * _SQUARE_PX):
            board.paste(tile.convert("RGB"), (left, top))
    return board
