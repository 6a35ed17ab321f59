"""Configuration of the function that processes batches."""

from pathlib import Path
from typing import ClassVar, Self

from pydantic import AliasChoices, Field

from core.options import Host, Options
from core.types import ImageInfo
from functions.contracts import object_keys
from functions.segment.config import SegmentationConfig
from functions.validate.job import Plan, ValidateConfig
from functions.validate.memory import check_process
from functions.validate.upload import Upload


class BulkConfig(ValidateConfig, SegmentationConfig):
    """Defaults and capabilities of the stack, for a process that runs all stages.

    Attributes:
        results_bucket: bucket of results and failure reports.
        cache_table: table of cache entries.
        reviews_table: table of reviews.
        aws_region: set by Lambda.
        bulk_memory_mb: memory of this function, MiB.
        bulk_budget_s: seconds after which no image may be in progress.
        model_elsewhere: whether a transform job has made the masks, so that the first attempt loads no model.
        sagemaker_endpoint_name: real-time endpoint for segmentation; None for none.
        pbr_numba_cache: folder of compiled functions, in the container image only.
    """

    results_bucket: str
    cache_table: str
    reviews_table: str
    aws_region: str
    bulk_memory_mb: int = Field(gt=0)
    segment_memory_mb: int = Field(default=0, validation_alias=AliasChoices("bulk_memory_mb", "segment_memory_mb"))
    refine_memory_mb: int = 0
    encode_memory_mb: int = 0
    bulk_budget_s: float = 265.0
    model_elsewhere: bool = False
    sagemaker_endpoint_name: str | None = None
    pbr_numba_cache: Path | None = None

    memory_parameter: ClassVar[str] = "BulkMemory"

    def accepts(self, bucket: str) -> bool:
        """Return whether images may be in a bucket: PrepareBulk has checked it, and the function's role does."""
        return True

    def folder_of(self, bucket: str) -> str:
        """Return the prefix of the names of results of images in a bucket."""
        return object_keys.source_folder(bucket, self.uploads_bucket)

    def result_name(self, upload: Upload) -> str:
        """Return the name that the keys of an upload's result derive from."""
        return self.folder_of(upload.bucket) + upload.key

    def check_image(self, image: ImageInfo, options: Options, background: ImageInfo | None, model_bytes: int) -> None:
        """Check that one process can run all stages; see :func:`functions.validate.memory.check_process`."""
        check_process(image, options, background, model_bytes, self.bulk_memory_mb)

    def models_to_load(self, plan: Plan) -> tuple[str, ...]:
        """Return the models of the attempts that this process makes; the first one may be that of a transform job."""
        elsewhere = self.model_elsewhere and plan.options.segmentation_host is Host.SAGEMAKER
        return super().models_to_load(plan)[1 if elsewhere else 0 :]

    def after_transform(self) -> Self:
        """Return the configuration for images whose masks a transform job has made: it is the host for ``auto``."""
        hosts = tuple(dict.fromkeys((*self.segmentation_hosts, "sagemaker")))
        changed = {"segmentation_host": "sagemaker", "segmentation_hosts": hosts, "model_elsewhere": True}
        return self.model_copy(update=changed)
