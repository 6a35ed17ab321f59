"""Bounds on what is accepted; they are checked before any pixel is decoded."""

from typing import Final

MAX_BYTES: Final = 100 * 1024 * 1024
"""Largest file. EventBridge hands over the size, so a larger one is refused without being read."""

MAX_PIXELS: Final = 100_000_000
"""Largest picture: 100 MP decode to 300 MB of RGB."""

MAX_KEY_BYTES: Final = 1000
"""Longest key of an upload, as UTF-8. S3 takes 1,024, and what is named after the upload needs some of them."""

MIN_SIDE_PX: Final = 16
"""Shortest side. Below it there is no edge to refine."""
