"""Segmentation models on this machine, as its environment variables configure them."""

import os
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from client.fingerprint import Fingerprint, take
from client.local_cloud import APP, ROOT
from core.segmentation.registry import Model, check_name, with_custom


def registry() -> dict[str, Model]:
    """Return the models by name, including those of PBR_CUSTOM_MODELS.

    Raises:
        InvalidOptionsError: if PBR_CUSTOM_MODELS is invalid.
    """
    return with_custom(os.environ.get("PBR_CUSTOM_MODELS", ""))


def directories() -> tuple[Path, ...]:
    """Return the directories of the weights: those of PBR_MODEL_DIR, or else one in the user's cache."""
    configured = [Path(name).absolute() for name in os.environ.get("PBR_MODEL_DIR", "").split(os.pathsep) if name]
    return tuple(configured) or (platformdirs.user_cache_path(APP) / "models",)


def fingerprint() -> Fingerprint:
    """Return the fingerprint of what an embedded cloud that starts now would run."""
    return take(ROOT, directories(), os.environ)


def check_model(name: str | None, models: Mapping[str, Model]) -> None:
    """Check the name of a model; None and ``auto`` are valid, too.

    Raises:
        InvalidOptionsError: if no model has this name.
    """
    if name not in (None, "auto"):
        check_name(name, models)
