"""Items of a bulk run: what a child gets, and its outcome."""

from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict

from core.options import read_presets
from core.presets import Preset
from functions.contracts.bulk import Engine, ItemOutcome, ManifestRow
from functions.contracts.job import Execution
from functions.contracts.object_keys import FOLDERS
from functions.runtime.handler import parse
from functions.validate.upload import Upload


class BatchInput(BaseModel):
    """What the items of a run have in common.

    Attributes:
        run: the execution of the run.
        options: of all images.
        bucket: of the images whose item names none.
        overwrite: whether results are computed again that exist or are cached.
        engine: what segments the images.
        pbr_presets: presets of the stack; its CustomModels leave no room for them in the function's environment.
    """

    model_config = ConfigDict(frozen=True)

    run: Execution
    options: dict[str, Any] = {}
    bucket: str
    overwrite: bool = False
    engine: Engine = "host"
    pbr_presets: str = ""

    @cached_property
    def presets(self) -> dict[str, Preset]:
        """Presets by name."""
        return read_presets(self.pbr_presets)


def read_item(item: dict[str, Any], shared: BatchInput) -> Upload | None:
    """Return the image of an item, which is an object of a listing or a row; None for folders.

    Raises:
        InvalidRequestError: the item is neither.
    """
    if "Key" in item:
        key = item["Key"]
        return None if key.endswith(FOLDERS) else Upload(bucket=shared.bucket, key=key, options=shared.options)
    row = parse(ManifestRow, item)
    options = {**shared.options, **row.requested}
    return Upload(bucket=row.bucket or shared.bucket, key=row.key, version_id=row.version_id, options=options)


def outcome_of(
    upload: Upload, document: dict[str, Any], run: Execution, *, cached: bool, engine: Engine = "host"
) -> ItemOutcome:
    """Return the outcome of an image with this sidecar. What this run computed in an earlier attempt is done.

    Its seconds are those of functions, which are billed by them: without the time on the instances of a transform job.
    """
    own = document["execution"]["id"] == run.id
    elsewhere = {"segment"} if engine == "batch-transform" and document["model"]["host"] == "sagemaker" else set()
    return named(
        upload,
        version_id=document["source"]["version_id"],
        options={},  # nothing repeats it, and the output of a child must not exceed 256 KB
        status="cached" if document["cache"]["hit"] or (cached and not own) else "done",
        result_key=document["result"]["key"],
        score=document["quality"]["score"],
        review=document["quality"]["review"],
        seconds=round(sum(s for stage, s in document["timings_s"].items() if stage not in elsewhere), 4)
        if own
        else 0.0,
        degraded=own and document["degraded"],
    )


def named(upload: Upload, **facts: Any) -> ItemOutcome:
    """Return the outcome of an image with these facts."""
    identity = {"bucket": upload.bucket, "key": upload.key, "version_id": upload.version_id}
    return ItemOutcome.model_validate({**identity, "options": upload.options, **facts})
