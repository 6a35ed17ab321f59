"""Bulk runs: the input of the state machine ``Bulk``, the rows of a manifest, and the summary of a run."""

import csv
import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from core.errors import InvalidRequestError, reason
from core.limits import MAX_KEY_BYTES
from functions.contracts.job import Execution

UPLOADS_PREFIX: Final = "bulk/"
"""Uploads under this prefix start no execution of their own."""

MAX_CONCURRENCY: Final = 10_000
"""Most children of a Distributed Map that run at a time."""

MAX_BATCH: Final = 100
"""Most items of an Express child, which ends after five minutes."""

MAX_INSTANCES: Final = 100
"""Most instances of a transform job."""

ALL_TOLERATED: Final = 100.0

Text: TypeAlias = Annotated[str, Field(min_length=1)]
"""Text without lone surrogates. JSON can contain them, and pydantic accepts them in a ``str`` without constraints."""

Child: TypeAlias = Literal["express", "standard"]
Engine: TypeAlias = Literal["host", "batch-transform"]
Status: TypeAlias = Literal["done", "cached", "failed", "not_done"]


class _Input(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ObjectAddress(_Input):
    """An object in S3."""

    bucket: Text = Field(description="Bucket.")
    key: Text = Field(description="Object key.")


class BulkSource(_Input):
    """What to process: a prefix of a bucket, a manifest, or the manifest.json of an S3 Inventory."""

    bucket: Text | None = Field(default=None, description="Bucket of the images, with prefix.")
    prefix: str | None = Field(default=None, description="Start of the keys in bucket; empty for the whole bucket.")
    manifest: ObjectAddress | None = Field(default=None, description="List of images: a .csv or .jsonl file.")
    inventory: ObjectAddress | None = Field(default=None, description="The manifest.json of an S3 Inventory in CSV.")

    @model_validator(mode="after")
    def _one_of_three(self) -> "BulkSource":
        listed = self.bucket is not None and self.prefix is not None
        if (self.bucket is None) != (self.prefix is None) or sum(
            (listed, bool(self.manifest), bool(self.inventory))
        ) != 1:
            raise ValueError("Give bucket and prefix, or manifest, or inventory")
        return self


class BulkRequest(_Input):
    """The input of an execution of ``Bulk``. Defaults depend on the stack, so most fields can be left out."""

    source: BulkSource = Field(description="What to process.")
    options: dict[str, Any] = Field(
        default={}, description="Options of all images. They override the object's metadata; a row overrides them."
    )
    child: Child | None = Field(
        default=None,
        description="Kind of the child executions: express processes batches in one function; standard starts an "
        "execution of the main state machine for each image, as ECS workers and asynchronous endpoints need. The "
        "default depends on SegmentationHost.",
    )
    engine: Engine = Field(
        default="host",
        description="What segments the images: host, the segmentation host of each; or batch-transform, a SageMaker "
        "Batch Transform job for all of them. Express children refine its masks.",
    )
    instances: Annotated[int, Field(ge=1, le=MAX_INSTANCES)] | None = Field(
        default=None,
        description=f"Maximum instances of the transform job, 1 to {MAX_INSTANCES}; one for each 500 images is enough. "
        "Default: BulkTransformInstanceCount.",
    )
    max_concurrency: Annotated[int, Field(ge=1, le=MAX_CONCURRENCY)] | None = Field(
        default=None,
        description=f"Maximum child executions at a time, 1 to {MAX_CONCURRENCY}. Default: BulkConcurrency.",
    )
    tolerated_failure_percentage: Annotated[float, Field(ge=0, le=100)] | None = Field(
        default=None, description="Maximum failed images in percent, 0 to 100. With more, the run fails. Default: 100."
    )
    tolerated_failure_count: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Maximum failed images. With more, the run fails. Default: no limit."
    )
    batch: Annotated[int, Field(ge=1, le=MAX_BATCH)] | None = Field(
        default=None, description=f"Images of an Express child, 1 to {MAX_BATCH}. Default: 10."
    )
    overwrite: bool = Field(
        default=False,
        description="Compute results again even if they exist or are cached. Express children only.",
    )


class ManifestRow(_Input):
    """An image of a manifest: a line of JSON, or a row of a CSV file whose ``options`` are a JSON object."""

    key: Text = Field(description="Object key.")
    bucket: Text | None = Field(default=None, description="Bucket; null for the uploads bucket.")
    version_id: Text | None = Field(default=None, description="Version; null for the newest.")
    options: dict[str, Any] = Field(default={}, description="Options of this image.")
    preset: Text | None = Field(default=None, description="Preset of this image; explicit options override it.")

    @property
    def requested(self) -> dict[str, Any]:
        """The options of the row, with its preset."""
        return {"preset": self.preset, **self.options} if self.preset else dict(self.options)


class _Lines(Iterator[str]):
    """Lines that know where a record begins, which ``csv.reader`` does not: a quoted cell can have several lines."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines, self._number = iter(lines), 0
        self.start = 0

    def __next__(self) -> str:
        line = next(self._lines)
        self._number += 1
        if not self.start and line.strip("\r\n"):
            self.start = self._number
        return line


def rows_of_csv(lines: Iterable[str]) -> Iterator[tuple[int, ManifestRow]]:
    """Yield the rows of a .csv manifest, each with the number of its first line.

    Raises:
        InvalidRequestError: a line is not such a row, or the header has no column ``key``; names the line.
    """
    numbered = _Lines(lines)
    reader = csv.DictReader(numbered, strict=True)
    try:
        if "key" not in (reader.fieldnames or []):
            raise InvalidRequestError(
                "The manifest's header has no column named key",
                field="manifest line 1",
                value=", ".join(reader.fieldnames or []),
                remedy="Start the file with a header such as key,version_id,options.",
            )
        numbered.start = 0
        for cells in reader:
            yield numbered.start, row_of_csv({str(name): cell for name, cell in cells.items()}, numbered.start)
            numbered.start = 0
    except csv.Error as error:
        raise InvalidRequestError(
            f"Line {numbered.start} of the manifest is invalid: {error}",
            field=f"manifest line {numbered.start}",
            value=None,
            remedy="Quote cells that contain commas or quotation marks, and double the quotation marks in them.",
        ) from None


def rows_of_json(lines: Iterable[str]) -> Iterator[tuple[int, ManifestRow]]:
    """Yield the rows of a .jsonl manifest, each with its line number. Empty lines are skipped.

    Raises:
        InvalidRequestError: a line is not such a row; names the line.
    """
    return ((number, row_of_json(line, number)) for number, line in enumerate(lines, 1) if line.strip())


def row_of_json(line: str, number: int) -> ManifestRow:
    """Return the row in a line of a .jsonl manifest.

    Raises:
        InvalidRequestError: the line is not such a row; ``field`` names the line.
    """
    try:
        value = json.loads(line)
    except ValueError as error:
        raise _bad_row(number, f"the line is not JSON: {error}", line) from None
    return _row(value, number)


def row_of_csv(cells: dict[str, str], number: int) -> ManifestRow:
    """Return the row in a line of a .csv manifest; empty cells are left out.

    Raises:
        InvalidRequestError: the line is not such a row; ``field`` names the line.
    """
    given: dict[str, Any] = {name: cell for name, cell in cells.items() if cell}
    if "options" in given:
        try:
            given["options"] = json.loads(given["options"])
        except ValueError as error:
            raise _bad_row(number, f"options is not a JSON object: {error}", given["options"]) from None
    return _row(given, number)


def _row(value: Any, number: int) -> ManifestRow:
    try:
        row = ManifestRow.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where, why = ".".join(map(str, first["loc"])), reason(first["msg"])
        raise _bad_row(number, f"{where}: {why}" if where else why, first["input"]) from None
    if len(row.key.encode()) > MAX_KEY_BYTES:
        raise _bad_row(number, f"key has more than {MAX_KEY_BYTES} bytes", row.key)
    return row


def _bad_row(number: int, why: str, value: object) -> InvalidRequestError:
    return InvalidRequestError(
        f"Line {number} of the manifest is invalid: {why}",
        field=f"manifest line {number}",
        value=value,
        remedy="A row has key, and may have bucket, version_id, options and preset. Correct the line and start again.",
    )


class ItemOutcome(BaseModel):
    """The outcome of an image of a bulk run: a row of ``items.csv``.

    Attributes:
        options: those of the run and of the row, so that the row can be repeated.
        report_key: the failure report, if there is one.
        degraded: whether the image was segmented on Lambda because the requested host failed.
    """

    model_config = ConfigDict(frozen=True)

    bucket: str
    key: str
    version_id: str | None = None
    options: dict[str, Any] = {}
    status: Status
    result_key: str | None = None
    score: float | None = None
    review: bool | None = None
    seconds: float = 0.0
    error: str | None = None
    message: str | None = None
    remedy: str | None = None
    report_key: str | None = None
    degraded: bool = False


class BatchOutcome(BaseModel):
    """The output of an Express child. ``succeeded`` counts images that are done or were done before."""

    items: list[ItemOutcome]
    succeeded: int
    failed: int


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CostEstimate(_Document):
    """What a run costs at list prices, in US dollars, without data transfer and without storage of results."""

    region: str = Field(description="Region whose prices were used.")
    prices_as_of: str = Field(description="Date of the price table, ISO 8601.")
    orchestration_usd: float = Field(description="Step Functions.")
    compute_usd: float = Field(description="Lambda. An endpoint or workers are billed by the hour and not included.")
    requests_usd: float = Field(description="Requests to S3 and DynamoDB.")
    transform_usd: float = Field(
        default=0.0, description="Instances of the transform job; 0 for instance types without a price in the table."
    )
    total_usd: float = Field(description="Sum of the above.")


class TransformReport(_Document):
    """The transform job of a run."""

    job: str = Field(description="Name of the job.")
    status: str = Field(description="Completed, Stopped, Failed or TimedOut.")
    reason: str | None = Field(description="Why it failed; null if it did not.")
    instance_type: str = Field(description="Type of its instances.")
    instances: int = Field(description="Number of its instances.")
    seconds: float = Field(description="Billed time of an instance, without its start.")


class SummaryFiles(_Document):
    """Object keys in the results bucket."""

    summary: str = Field(description="This document.")
    items: str = Field(description="One row per image, CSV.")
    failed: str | None = Field(
        description="Manifest of the images that failed or were not done; null if all have a result."
    )


class BulkError(_Document):
    """Why a run failed."""

    error: str = Field(description="Name of the error.")
    message: str = Field(description="What is wrong.")
    remedy: str = Field(description="What to do about it.")


class BulkSummary(_Document):
    """The output of a bulk run, the file ``summary.json``, and the message to the topic."""

    run: str = Field(description="Name of the run, which is that of its execution.")
    execution: Execution = Field(description="Execution of the run.")
    status: Literal["SUCCEEDED", "FAILED"] = Field(description="FAILED if more images failed than are tolerated.")
    child: Child = Field(description="Kind of the child executions.")
    items: int = Field(description="Images of the run that were read from its source.")
    done: int = Field(description="Results that were computed.")
    cached: int = Field(description="Images that had their result, or got it from the cache.")
    failed: int = Field(description="Images that failed.")
    not_done: int = Field(
        description="Images that were not attempted, because their batch had no time left or the run stopped early."
    )
    review: int = Field(description="Results that a person should look at.")
    degraded: int = Field(default=0, description="Results segmented on Lambda because the requested host failed.")
    engine: Engine = Field(default="host", description="What segmented the images.")
    transform: TransformReport | None = Field(
        default=None, description="Transform job; null if there was none, or if no mask was missing."
    )
    errors: dict[str, int] = Field(description="Number of failed images by name of the error.")
    seconds: float = Field(description="Duration of the run until its summary.")
    item_seconds: float = Field(description="Sum of the processing times of all images.")
    cost: CostEstimate = Field(description="Estimated cost.")
    files: SummaryFiles = Field(description="Files of the run.")
    error: BulkError | None = Field(description="Why the run failed; null if it succeeded.")


def run_prefix(run: str) -> str:
    """Return the prefix of a run's files, in the results bucket and in the work bucket."""
    return f"{UPLOADS_PREFIX}{run}/"


def requests_prefix(run: str) -> str:
    """Return the prefix of the input of a run's transform job, in the work bucket."""
    return f"{run_prefix(run)}transform/requests/"


def over_tolerance(failed: int, total: int, percentage: float, count: int | None) -> bool:
    """Return whether more items failed than are tolerated: either limit is enough."""
    return (count is not None and failed > count) or (total > 0 and 100 * failed / total > percentage)
