"""The contact sheet of a bulk run: one HTML file without scripts or external resources, doubtful results first."""

import base64
import html
import itertools
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from client.bulk.state import Item, RunState
from client.outputs import write
from client.thumbnails import FULL_SIDE_PX, side_px, thumbnails
from functions.contracts.result import reasons_text

MAX_IMAGES: Final = 10_000
"""Most images on a sheet: each takes about 7 kB of the file, with thumbnails of full size 21 kB."""

_MAX_BYTES: Final = 100 * 1024 * 1024
_MAX_FAILURES: Final = 1000

_STYLE: Final = """
:root { color-scheme: light dark; --ground: #fff; --text: #222; --faint: #666; --line: #ddd; --review: #a40;
  --card: #fff; --a: #fff; --b: #ccc }
@media (prefers-color-scheme: dark) { :root { --ground: #181818; --text: #e8e8e8; --faint: #a5a5a5; --line: #3c3c3c;
  --review: #ffa861; --card: #222 } a { color: #8ab4ff } a:visited { color: #c3a6ff } }
* { box-sizing: border-box }
body { font: 14px/1.4 system-ui, sans-serif; margin: 0 1.5rem 1.5rem; color: var(--text); background: var(--ground) }
h1 { font-size: 1.4rem; margin: 1rem 0 .3rem; overflow-wrap: anywhere }
h2 { font-size: 1.1rem; margin: .5rem 0 }
p { margin: .3rem 0 }
small, .faint { color: var(--faint); font-size: 12px }
nav { position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: 4px 24px; padding: 8px 0;
  margin-bottom: 8px; background: var(--ground); border-bottom: 1px solid var(--line) }
fieldset { border: 0; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: 2px 12px }
legend { float: left; font-weight: 600; padding: 0 }
label { white-space: nowrap }
input { accent-color: #06c; margin: 0 3px 0 0; vertical-align: -1px }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 12px }
main.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 240px), 1fr)) }
figure { margin: 0; padding: 10px; border: 1px solid var(--line); border-radius: 6px; background: var(--card);
  content-visibility: auto; contain-intrinsic-size: auto 330px auto 220px; scroll-margin-top: 60px }
figure.review { border-color: var(--review); border-left-width: 5px }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 6px }
.pair > * { display: flex; aspect-ratio: 1; min-width: 0; align-items: center; justify-content: center;
  background: #8882 }
.pair .none { padding: 8px; text-align: center; color: var(--faint) }
img { max-width: 100%; max-height: 100%; width: auto; height: auto }
.cut img { background: repeating-conic-gradient(var(--b) 0 25%, var(--a) 0 50%) 0 0 / 16px 16px }
:root:has(#white:checked) .cut img { background: #fff }
:root:has(#gray:checked) .cut img { background: #808080 }
:root:has(#black:checked) .cut img { background: #000 }
:root:has(#magenta:checked) .cut img { background: #f0f }
:root:has(#review:checked) :is(figure:not(.review), #failures), :root:has(#failed:checked) figure { display: none }
figcaption { margin-top: 6px; overflow-wrap: anywhere }
figcaption b { color: var(--review) }
#failures { border: 1px solid var(--line); border-radius: 6px; padding: 4px 12px; margin-bottom: 12px }
#failures li { margin: 4px 0; overflow-wrap: anywhere }
:focus-visible { outline: 3px solid #06c; outline-offset: 2px }
@media print { nav { display: none } figure { break-inside: avoid; content-visibility: visible }
  .cut img { print-color-adjust: exact } main { grid-template-columns: repeat(3, 1fr) } }
"""

_CHOICES: Final = (
    ("Show", (("all", "all"), ("review", "to review"), ("failed", "failed"))),
    (
        "Background",
        (
            *(("checkerboard", "checkerboard"), ("white", "white"), ("gray", "gray"), ("black", "black")),
            ("magenta", "magenta"),
        ),
    ),
)


def write_sheet(state: RunState, path: Path, title: str, max_bytes: int = _MAX_BYTES) -> None:
    """Write the contact sheet of a run.

    Args:
        state: the state of the run.
        path: of the HTML file.
        title: its title.
        max_bytes: size of the figures after which the others are left out.
    """
    settings = state.load("settings") or {}
    originals = Path(settings["folder"]) if settings.get("folder") else None
    parts, size = [], 0
    for item in itertools.islice(state.by_quality(), MAX_IMAGES):
        if size >= max_bytes:
            break
        parts.append(_figure(item, path, originals, state))
        size += len(parts[-1])
    is_small = ' class="small"' if side_px(state.count_thumbnails()) < FULL_SIDE_PX else ""
    page = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; ',
        "style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>",
        *_heading(title, state.counts(), settings.get("options") or {}, len(parts)),
        *(_choice(name, choices) for name, choices in _CHOICES),
        "</nav>",
        *_failures(state, path, originals),
        f'<main aria-label="Results"{is_small}>\n',
        *parts,
        "</main></body></html>\n",
    ]
    write({path: "".join(page).encode(errors="replace")})


def _heading(title: str, counts: Counter[str], options: dict[str, Any], shown: int) -> Iterator[str]:
    failed, results = counts["failed"] + counts["not_done"], counts["done"] + counts["cached"] + counts["kept"]
    yield f"<header><h1>{_text(title)}</h1><p>{results} result{'' if results == 1 else 's'}"
    yield f", {counts['review']} to review, {failed} failed. Results to review come first, then the lowest quality."
    if results > shown:
        yield f" The {results - shown} best are left out."
    yield "</p>"
    if options:
        given = ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in sorted(options.items()))
        yield f'<p class="faint">Options: {_text(given)}</p>'
    yield '</header>\n<nav aria-label="View">'


def _choice(name: str, choices: tuple[tuple[str, str], ...]) -> str:
    radios = (
        f'<label><input type="radio" name="{name}" id="{value}"{" checked" if number == 0 else ""}>{label}</label>'
        for number, (value, label) in enumerate(choices)
    )
    return f"<fieldset><legend>{name}:&nbsp;</legend>{''.join(radios)}</fieldset>"


def _failures(state: RunState, sheet: Path, originals: Path | None) -> Iterator[str]:
    counts = state.counts()
    if count := counts["failed"] + counts["not_done"]:
        yield f'<section id="failures"><h2>{count} failed</h2><ul>\n'
        for item in itertools.islice(state.items("failed", "not_done"), _MAX_FAILURES):
            name = f"<bdi>{_text(item.label)}</bdi>"
            file = _original(item, originals)
            remedy = f" {_text(item.remedy)}" if item.remedy else ""
            yield f"<li>{_link(file, sheet, name) if file else name}: {_text(item.message or '')}.{remedy}</li>\n"
        if count > _MAX_FAILURES:
            yield f"<li>{count - _MAX_FAILURES} more are in the report.</li>"
        yield "</ul></section>\n"


def _figure(item: Item, sheet: Path, originals: Path | None, state: RunState) -> str:
    file = Path(item.result) if item.result and not item.result.startswith("s3://") else None
    found = state.thumbnails(item)
    if file and not found.result and state.count_thumbnails() < MAX_IMAGES:  # the run was interrupted before
        found = thumbnails(_content(_original(item, originals)), _content(file), side_px(state.counts().total()))
        state.save_thumbnails(item, found)
    pictures = (
        _picture(found.original, "Original", item, _original(item, originals), sheet, ""),
        _picture(found.result, "Result", item, file, sheet, "cut", ' tabindex="-1"'),  # the name has the same link
    )
    pair = f'<div class="pair">{"".join(pictures)}</div>' if found.original or found.result else ""
    name = f"<bdi>{_text(item.label)}</bdi>"
    score = "" if item.score is None else f"quality {item.score:.2f}"
    reasons = _text(reasons_text(code for code in (item.reasons or "").split(", ") if code))
    notes = f"<b>To review: {reasons or 'low quality'}</b>" if item.review else ""
    caption = f"<figcaption>{_link(file, sheet, name) if file else name} <small>{score}</small><br>{notes}"
    kind = ' class="review"' if item.review else ""
    return f"<figure{kind}>{pair}{caption}</figcaption></figure>\n"


def _picture(
    data: bytes | None, kind: str, item: Item, file: Path | None, sheet: Path, style: str, attributes: str = ""
) -> str:
    if data is None:
        inner, style = f"No preview of the {kind.lower()}", "none"
    else:
        source = f"data:image/webp;base64,{base64.b64encode(data).decode()}"
        alt = f"{kind}: {_text(item.label)}"
        inner = f'<img alt="{alt}" loading="lazy" decoding="async" src="{source}">'
    if file is None:
        return f'<div class="{style}">{inner}</div>'
    return _link(file, sheet, inner, f' class="{style}" title="{kind}"{attributes}')


def _original(item: Item, originals: Path | None) -> Path | None:
    return originals / item.path if originals else None


def _content(file: Path | None) -> bytes | None:
    try:
        return file.read_bytes() if file else None
    except OSError:
        return None


def _link(file: Path, sheet: Path, content: str, attributes: str = "") -> str:
    relative = quote(os.fsencode(os.path.relpath(file, sheet.parent)))
    return f'<a href="{html.escape(relative)}"{attributes}>{content}</a>'


def _text(text: str) -> str:
    """Escape text, and replace characters that are not visible, e.g. those that change the direction of writing."""
    return html.escape("".join(one if one.isprintable() else "\ufffd" for one in text))
