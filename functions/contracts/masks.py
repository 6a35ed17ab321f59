"""Masks that a Batch Transform job makes for a bulk run: a request is a line of the job's input."""

import json
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from core.options import Options
from core.types import ImageInfo
from functions.contracts.job import Execution, Job, Keys, MaskPart, Source
from functions.contracts.object_keys import cache_key

MASK_FACTS: Final = "pbr-mask"
"""Metadata of a mask: its :class:`functions.contracts.job.MaskPart` as JSON, so that mask and facts are one object."""


MASKS: Final = "masks/"
"""Prefix of masks in the work bucket."""


class MaskSource(BaseModel):
    """The version of an image to segment."""

    model_config = ConfigDict(frozen=True)

    bucket: str
    key: str
    version_id: str | None = None
    etag: str | None = None


class MaskRequest(BaseModel):
    """A mask to make.

    Attributes:
        mask_of: the image.
        options: resolved, so that they name the model.
        model_identity: :attr:`core.segmentation.registry.Model.identity`; None for a segmenter without weights.
    """

    model_config = ConfigDict(frozen=True)

    mask_of: MaskSource
    options: Options
    model_identity: str | None = None

    def line(self) -> str:
        """Return the request as JSON without line breaks."""
        return json.dumps({**self.model_dump(), "options": self.options.set_or_known()})

    def job(self, key: str, content_sha256: str, info: ImageInfo) -> Job:
        """Return the job that segmentation expects, which ends with its mask.

        Args:
            key: of the mask.
            content_sha256: SHA-256 of the image file.
            info: facts of the image.
        """
        source = Source(
            **self.mask_of.model_dump(),
            sha256=content_sha256,
            bytes=info.bytes,
            format=info.format,
            width=info.width,
            height=info.height,
        )
        return Job(
            execution=Execution(id="", name="", started_at=""),
            source=source,
            options=self.options,
            host="sagemaker",
            background=None,
            cache_key="",
            cache_expires_at="",
            keys=Keys(mask=key, alpha="", cached="", result="", sidecar=""),
            timings_s={},
            warnings=[],
        )


def mask_key(content_sha256: str, options: Options, model_identity: str | None) -> str:
    """Return the key of a mask in the work bucket. It changes with all that decides the mask, and with other options.

    Args:
        content_sha256: SHA-256 of the image file.
        options: see :class:`MaskRequest`.
        model_identity: see :class:`MaskRequest`.
    """
    identity = cache_key(content_sha256, options, model_identity=model_identity, background_sha256=None)
    return f"{MASKS}{identity}.png"


def read_facts(text: str | None) -> MaskPart | None:
    """Return the facts in the metadata of a mask, or None if an earlier version wrote others."""
    try:
        return MaskPart.model_validate_json(text or "")
    except ValidationError:
        return None
