"""Configuration of the function that processes batches."""

from pathlib import Path

from pydantic import Field

from core.errors import InvalidRequestError
from core.options import Options
from core.types import ImageInfo
from functions.contracts import object_keys
from functions.runtime.config import Names
from functions.segment.config import SegmentationConfig
from functions.validate.job import ValidateConfig
from functions.validate.memory import check_process
from functions.validate.upload import Upload


class BulkConfig(ValidateConfig, SegmentationConfig):
    """Defaults and capabilities of the stack, for a process that runs all stages.

    Attributes:
        results_bucket: bucket of results and failure reports.
        cache_table: table of cache entries.
        bulk_source_buckets: buckets that images are read from, besides the uploads bucket.
        bulk_memory_mb: memory of this function, MiB.
        bulk_budget_s: seconds after which no image may be in progress.
        sagemaker_endpoint_name: real-time endpoint for segmentation; None for none.
        pbr_numba_cache: folder of compiled functions, in the container image only.
    """

    results_bucket: str
    cache_table: str
    bulk_source_buckets: Names = ()
    bulk_memory_mb: int = Field(gt=0)
    bulk_budget_s: float = 265.0
    sagemaker_endpoint_name: str | None = None
    pbr_numba_cache: Path | None = None

    @property
    def source_buckets(self) -> tuple[str, ...]:
        """The buckets that images may be in."""
        return (self.uploads_bucket, *self.bulk_source_buckets)

    def wrong_bucket(self, bucket: str) -> InvalidRequestError:
        """Return the error for an image in another bucket."""
        return InvalidRequestError(
            "The stack may not read this bucket",
            field="source.bucket",
            value=bucket,
            remedy=f"Use one of {', '.join(self.source_buckets)}, or add the bucket to BulkSourceBuckets.",
        )

    def folder_of(self, bucket: str) -> str:
        """Return the prefix of the names of results of images in a bucket."""
        return object_keys.source_folder(bucket, self.uploads_bucket)

    def result_name(self, upload: Upload) -> str:
        """Return the name that the keys of an upload's result derive from."""
        return self.folder_of(upload.bucket) + upload.key

    def check_image(self, image: ImageInfo, options: Options, background: ImageInfo | None, model_bytes: int) -> None:
        """Check that one process can run all stages; see :func:`functions.validate.memory.check_process`."""
        check_process(image, options, background, model_bytes, self.bulk_memory_mb)
