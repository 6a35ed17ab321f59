"""Links that save files: the browser gets them from a route, so that the session holds none of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from web.components import component


@dataclass(frozen=True)
class Download:
    """A file to save.

    Attributes:
        label: text of the link.
        address: path of the file.
        token: field ``token`` of a form that is sent to the address; None for a plain link.
        primary: whether the link stands out.
    """

    label: str
    address: str
    token: str | None = None
    primary: bool = True


def show(downloads: Sequence[Download], key: str) -> None:
    """Show links in a row."""
    component("downloads")(data=[asdict(one) for one in downloads], key=key, width="content")
