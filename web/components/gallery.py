"""A strip of thumbnails, one of which is selected."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from web.components import component


@dataclass(frozen=True)
class Thumbnail:
    """A thumbnail.

    Attributes:
        id: identifies it.
        name: name of the image.
        state: ``waiting``, ``uploading``, ``running``, ``done``, ``review`` or ``failed``.
        note: that state in words.
        picture: address of a picture; None for none.
    """

    id: str
    name: str
    state: str
    note: str
    picture: str | None


def show(thumbnails: Sequence[Thumbnail], selected: str | None) -> str | None:
    """Show thumbnails, and return the ``id`` of the one that the user has just selected; None otherwise."""
    chosen = component("gallery")(
        data={"items": [asdict(one) for one in thumbnails], "selected": selected},
        key="gallery",
        on_selected_change=lambda: None,
    )
    found: str | None = chosen.selected
    return found
