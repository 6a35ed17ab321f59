"""Compare an image with its result: a slider, backgrounds, the alpha, and the edge at full size."""

from dataclasses import asdict, dataclass
from typing import Literal

from web.components import component


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        name: name of the image.
        before: address of the original.
        after: address of the result.
        alpha: ``own`` if the result's transparency is its alpha, ``itself`` if the result is an alpha as a grayscale
            image; otherwise the address of the alpha.
        aligned: whether both have the same shape, so that a slider can show parts of each.
    """

    name: str
    before: str
    after: str
    alpha: Literal["own", "itself"] | str
    aligned: bool


def show(comparison: Comparison) -> None:
    """Show the comparison in the width of its column."""
    component("compare")(data=asdict(comparison), key="compare")
