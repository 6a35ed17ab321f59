"""Presets: named sets of options. Explicit options override those of a preset."""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

Preset: TypeAlias = Mapping[str, Any]
"""Options by name, not validated; see :class:`core.options.Options`."""

BUILT_IN: Final[Mapping[str, Preset]] = {
    "white-square": {
        "canvas": "2000x2000",
        "scale": "85%",
        "background_color": "#ffffff",
        "format": "jpeg",
    },
    "transparent-square": {
        "canvas": "2000x2000",
        "scale": "85%",
    },
    "portrait": {
        "canvas": "1600x2000",
        "scale": "85%",
        "position": "auto",
        "background_color": "#ffffff",
        "format": "jpeg",
    },
    "sticker": {
        "canvas": "512x512",
        "scale": "93.75%",
        "outline": "8px",
        "outline_color": "#ffffff",
        "format": "webp",
    },
}
"""The presets of every stack. ``sticker`` follows the rules of WhatsApp: a margin of 16 px, a white stroke of 8 px."""

BACKGROUNDS: Final = ("background_color", "background_key", "background_blur")
"""Options for what is behind the subject, which exclude each other."""


def merge(preset: Preset, explicit: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a preset, overridden by explicit ones.

    A result has one background, a mask has neither background nor outline, and a zip has no background: an explicit
    option also removes what it excludes from the preset.

    Example:
        >>> merge({"background_color": "#ffffff", "format": "jpeg"}, {"background_key": "backgrounds/oak.jpg"})
        {'format': 'jpeg', 'background_key': 'backgrounds/oak.jpg'}
    """
    removed = set(explicit)
    if not removed.isdisjoint(BACKGROUNDS) or explicit.get("output") == "mask" or explicit.get("format") == "zip":
        removed.update(BACKGROUNDS)
    if explicit.get("output") == "mask":
        removed |= {"outline", "outline_color"}
    return {**{name: value for name, value in preset.items() if name not in removed}, **explicit}
