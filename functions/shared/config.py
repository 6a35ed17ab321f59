"""Configuration: read from the environment once, when the process starts."""

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict

from core.models import ModelSource


class Config(BaseSettings):
    """Base of each process's configuration: a field is the environment variable of the same name."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True)


class SegmentationConfig(Config):
    """What all three hosts of segmentation need.

    Attributes:
        pbr_model_dir: where weights lie; a directory inside the image, or one that can be written.
        pbr_model_mirror: base URL to fetch weights from that are not there; None for rembg's releases.
        pbr_model_timeout_s: bound on that fetch.
    """

    work_bucket: str
    pbr_model_dir: Path
    pbr_model_mirror: str | None = None
    pbr_model_timeout_s: float = 120.0

    @property
    def weights(self) -> ModelSource:
        """Where core finds weights."""
        return ModelSource(
            directory=self.pbr_model_dir, mirror=self.pbr_model_mirror, timeout_s=self.pbr_model_timeout_s
        )
