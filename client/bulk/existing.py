"""Results on this machine that a run need not compute again."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from client.bulk.state import Item
from core.options import Options
from functions.contracts.object_keys import sidecar_key

_WITHOUT_EFFECT: Final = frozenset({"preset", "segmentation_host"})
"""Options that change neither the content nor the name of a result; those of a preset are compared themselves."""


@dataclass(frozen=True)
class Existing:
    """A result with its sidecar.

    Attributes:
        path: file of the result.
        sidecar: content of its sidecar.
        changed: names of the options that it was not made with.
    """

    path: Path
    sidecar: dict[str, Any]
    changed: tuple[str, ...]


def existing(out: Path, item: Item, options: Options, default_model: str | None, newest_ns: int) -> Existing | None:
    """Return the result that the image has, unless it is older than what it was made from.

    A result whose size is not the one in its sidecar was edited since: its options are not compared.

    Args:
        out: directory of the results.
        item: the image.
        options: those of the run.
        default_model: what the stack takes for the model ``auto``; None if it is unknown.
        newest_ns: time of the last change of image and background.
    """
    path = out / f"{item.target}.{options.format.extension}"
    try:
        status = path.stat()
        sidecar = json.loads(Path(sidecar_key(str(path))).read_bytes())
        size, made_with = sidecar["image"]["bytes"], sidecar["options"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if status.st_mtime_ns < newest_ns:
        return None
    return Existing(path, sidecar, () if status.st_size != size else _changed(made_with, options, default_model))


def _changed(made_with: dict[str, Any], options: Options, default_model: str | None) -> tuple[str, ...]:
    wanted = options.model_dump(mode="json")
    if options.model == "auto":
        wanted["model"] = default_model or made_with.get("model")
    made = {**Options().model_dump(mode="json"), **made_with}  # an older version knew fewer options
    return tuple(name for name in wanted if name not in _WITHOUT_EFFECT and wanted[name] != made[name])
