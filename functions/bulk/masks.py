"""Requests for the masks that a transform job is to make: the images of a run that have no result yet."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from typing import Final

from functions.bulk.image import ImageProcessor
from functions.bulk.items import BatchInput, read_item
from functions.bulk.objects import BulkObjects
from functions.contracts.bulk import requests_prefix
from functions.contracts.masks import MaskRequest
from functions.validate.upload import Upload

_THREADS: Final = 10
"""As many as botocore has connections."""


@dataclass(frozen=True)
class MaskPlanner:
    """Writes the input of a transform job.

    Attributes:
        images: finds out which images have their result.
        objects: S3.
        bucket: the work bucket.
    """

    images: ImageProcessor
    objects: BulkObjects
    bucket: str

    def plan(self, items: list[dict[str, object]], shared: BatchInput) -> dict[str, int]:
        """Write a file with the requests for the masks of a batch, unless none is missing; return both numbers.

        Raises:
            TransientError: S3 is unavailable.
        """
        uploads = [upload for item in items if (upload := read_item(item, shared))]

        def request(upload: Upload) -> MaskRequest | None:
            return self.images.mask_request(upload, shared.presets, overwrite=shared.overwrite)

        with ThreadPoolExecutor(_THREADS) as pool:
            requests = [found for found in pool.map(request, uploads) if found]
        if requests:
            text = "".join(f"{one.line()}\n" for one in requests).encode()
            name = sha256(text).hexdigest()[:16]
            self.objects.upload(self.bucket, f"{requests_prefix(shared.run.name)}{name}.jsonl", BytesIO(text))
        return {"images": len(uploads), "requests": len(requests)}
