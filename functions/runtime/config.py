"""Configuration of a process, read once from environment variables."""

import itertools
import os
from functools import cached_property
from typing import Annotated, Any, Final, TypeAlias

from botocore.config import Config as SdkConfig
from pydantic import BeforeValidator, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core.options import read_presets
from core.presets import Preset
from core.segmentation.registry import Model, with_custom

SDK: Final = SdkConfig(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 4})
"""Timeouts and retries of AWS calls. A call without response fails before the function times out."""


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Names: TypeAlias = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Comma-separated names in an environment variable."""


class Config(BaseSettings):
    """Base of all configurations. A field is read from the environment variable of the same name."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True)


class CatalogueConfig(Config):
    """Configuration of the model registry.

    Attributes:
        pbr_custom_models: models to add to the registry; format in docs/how-to/models.md. If there are variables
            PBR_CUSTOM_MODELS_1 and so on, they continue it: infrastructure/endpoint.yaml cuts the list at each "name".
    """

    pbr_custom_models: str = ""

    @field_validator("pbr_custom_models")
    @classmethod
    def _joined(cls, text: str) -> str:
        parts = (os.environ.get(f"PBR_CUSTOM_MODELS_{number}", "") for number in itertools.count(1))
        return '"name"'.join([text, *itertools.takewhile(bool, parts)])

    @cached_property
    def registry(self) -> dict[str, Model]:
        """Models by name, best first, custom models last."""
        return with_custom(self.pbr_custom_models)


class PresetConfig(Config):
    """Configuration of presets.

    Attributes:
        pbr_presets: presets of the stack; format in docs/how-to/presets.md.
    """

    pbr_presets: str = ""

    @cached_property
    def presets(self) -> dict[str, Preset]:
        """Presets by name. Not needed by requests without one, so that an invalid parameter fails no others."""
        return read_presets(self.pbr_presets)
