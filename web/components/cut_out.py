"""An original and its cut-out side by side, with a zoom to the most uncertain place, and the next ones below.

Streamlit has no zoom of two pictures at the same place, and loads no picture before it is shown.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import streamlit as st

Background = Literal["checkerboard", "white", "black"]

_HTML: Final = """
<div class="panes">
  <figure><div class="pane"><img class="source" /></div><figcaption>Original</figcaption></figure>
  <figure><div class="pane"><img class="result" /></div><figcaption>Cut-out</figcaption></figure>
</div>
<div class="strip" role="group" aria-label="Next cut-outs"></div>
"""


@dataclass(frozen=True)
class Shown:
    """A picture: its address and its text for those who do not see it."""

    src: str
    alt: str


@dataclass(frozen=True)
class Next:
    """A cut-out in the strip; one that ``waits`` for its retry cannot be chosen."""

    id: str
    src: str
    alt: str
    label: str
    waits: bool


@cache
def _component() -> Any:
    css, js = (Path(__file__).with_suffix(suffix).read_text() for suffix in (".css", ".js"))
    return st.components.v2.component("pbr.cut_out", html=_HTML, css=css, js=js)


def cut_out(
    source: Shown,
    result: Shown,
    following: Sequence[Next],
    *,
    background: Background,
    zoom: bool,
    same_geometry: bool,
    prefetch: Sequence[str],
) -> tuple[str | None, bool | None]:
    """Show an original and its cut-out.

    Args:
        source: the original.
        result: the cut-out.
        following: the next cut-outs.
        background: behind the cut-out.
        zoom: enlarge the most uncertain place; moving the pointer shows others.
        same_geometry: whether both show the same region, so that the zoom applies to the original, too.
        prefetch: addresses of pictures that are likely to be shown next.

    Returns:
        The ID of the cut-out that was chosen in the strip, and the zoom that a click asked for; None for neither.
    """
    data = {
        "source": asdict(source),
        "result": asdict(result),
        "next": [asdict(one) for one in following],
        "background": background,
        "zoom": zoom,
        "same_geometry": same_geometry,
        "prefetch": list(prefetch),
    }
    found = _component()(key="cut_out", data=data, on_chosen_change=_nothing, on_zoomed_change=_nothing)
    return found.chosen, found.zoomed


def _nothing() -> None:
    """Values are read where the component is shown."""
