"""Configuration: read from the environment once, when the process starts."""

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

from botocore.config import Config as SdkConfig
from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core.segmentation.registry import Model, with_custom
from core.segmentation.sessions import Device, Networks
from functions.runtime import cgroup
from functions.runtime.weights import ModelSource, open_url

SDK: Final = SdkConfig(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 4})
"""How a stage calls AWS. A call that nobody answers fails by its own name, before its function's time is up."""


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Names: TypeAlias = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Names that an environment variable separates by commas."""


class Config(BaseSettings):
    """Base of each process's configuration: a field is the environment variable of the same name."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True)


class CatalogueConfig(Config):
    """Which models there are.

    Attributes:
        pbr_custom_models: models beside the registry's, as docs/how-to/models.md describes them.
    """

    pbr_custom_models: str = ""

    @cached_property
    def registry(self) -> dict[str, Model]:
        """The models by name, best first, custom ones last."""
        return with_custom(self.pbr_custom_models)


class SegmentationConfig(CatalogueConfig):
    """What all three hosts of segmentation need.

    Attributes:
        pbr_model_dir: directories of weights, separated as in PATH; missing ones are put into the last, if it can be
            written.
        pbr_model_mirror: base URL, https or s3://bucket/prefix, to fetch weights from that are not there; None for
            rembg's releases.
        pbr_model_timeout_s: bound on that fetch.
        pbr_device: what networks run on.
        pbr_sessions: how many networks stay in memory.
    """

    work_bucket: str
    pbr_model_dir: str
    pbr_model_mirror: str | None = None
    pbr_model_timeout_s: float = 120.0
    pbr_device: Device = Device.CPU
    pbr_sessions: Annotated[int, Field(gt=0)] = 1

    def networks(self) -> Networks:
        """Return the networks of this process; none is loaded yet."""
        source = ModelSource(
            directories=tuple(Path(directory) for directory in self.pbr_model_dir.split(os.pathsep)),
            mirror=self.pbr_model_mirror,
            timeout_s=self.pbr_model_timeout_s,
            registry=self.registry,
            open_url=open_url,
        )
        return Networks(source, threads=cgroup.cpus(), device=self.pbr_device, most=self.pbr_sessions)
