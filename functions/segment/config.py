"""Configuration of segmentation, read once from environment variables."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field

from core.segmentation.sessions import Device, Networks
from functions.runtime import cgroup
from functions.runtime.config import CatalogueConfig
from functions.runtime.weights import ModelSource, open_url
from functions.segment.gpu import CountedNetworks


class SegmentationConfig(CatalogueConfig):
    """Configuration of segmentation on all hosts.

    Attributes:
        work_bucket: bucket for masks.
        pbr_model_dir: directories of weights, separated as in PATH. Downloads go to the last one, if it is writable.
        pbr_model_mirror: base URL of weights, https or s3://bucket/prefix; None for rembg's releases.
        pbr_model_timeout_s: timeout of a download, in seconds.
        pbr_device: device of the networks.
        pbr_sessions: number of networks to keep in memory.
    """

    work_bucket: str
    pbr_model_dir: str
    pbr_model_mirror: str | None = None
    pbr_model_timeout_s: float = 120.0
    pbr_device: Device = Device.CPU
    pbr_sessions: Annotated[int, Field(gt=0)] = 1

    def networks(self) -> Networks:
        """Return the networks of this process, not yet loaded."""
        source = ModelSource(
            directories=tuple(Path(directory) for directory in self.pbr_model_dir.split(os.pathsep)),
            mirror=self.pbr_model_mirror,
            timeout_s=self.pbr_model_timeout_s,
            registry=self.registry,
            open_url=open_url,
        )
        return CountedNetworks(source, threads=cgroup.cpus(), device=self.pbr_device, most=self.pbr_sessions)
