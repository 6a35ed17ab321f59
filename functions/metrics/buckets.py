"""Image sizes as a metric dimension. Few values, because CloudWatch bills each combination as a separate metric."""

from typing import Final

_UPPER_MEGAPIXELS: Final = (1, 4, 12, 24, 50)


def image_size(width: int, height: int) -> str:
    """Return the size class of an image: ``<=1MP``, ``<=4MP``, ``<=12MP``, ``<=24MP``, ``<=50MP`` or ``>50MP``."""
    megapixels = width * height / 1e6
    for upper in _UPPER_MEGAPIXELS:
        if megapixels <= upper:
            return f"<={upper}MP"
    return f">{_UPPER_MEGAPIXELS[-1]}MP"
