"""Check the input of a bulk run, fill in its defaults, and write its rows."""

import csv
import gzip
import json
import tempfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import IO, Any, Final, Literal
from urllib.parse import unquote_plus

from core.errors import BackgroundRemoverError, InvalidRequestError, SourceNotFoundError
from core.options import Options
from functions.bulk.objects import BulkObjects
from functions.bulk.tags import tags_of
from functions.contracts.bulk import (
    ALL_TOLERATED,
    BulkRequest,
    ManifestRow,
    ObjectAddress,
    requests_prefix,
    rows_of_csv,
    rows_of_json,
)
from functions.contracts.bulk import run_prefix as prefix_of
from functions.contracts.job import Execution
from functions.contracts.object_keys import FOLDERS
from functions.runtime.config import Names, PresetConfig

DEFAULT_BATCH: Final = 10

MOST_TOLERATED: Final = 10_000_000
"""Largest ToleratedFailureCount of a Distributed Map."""

_MAX_LINE_BYTES: Final = 1 << 20

_GPU_AMI: Final = "al2-ami-sagemaker-batch-gpu-535"
"""NVIDIA driver 535. The default on some instance types is 470, but CUDA in the image needs 525."""


class PrepareConfig(PresetConfig):
    """Defaults and capabilities of the stack.

    Attributes:
        uploads_bucket: bucket of uploads.
        results_bucket: bucket of results, with the failure lists of earlier runs.
        work_bucket: bucket of rows.
        bulk_source_buckets: buckets that images and manifests may be in, besides.
        bulk_concurrency: default of ``max_concurrency``.
        segmentation_host: default host, which decides about the kind of children.
        sagemaker_mode: how the endpoint is invoked; ``transform`` if there is only a model.
        transform_model_name: SageMaker model for transform jobs; None for none.
        transform_model_arn: its ARN. Jobs get its tags, which are those of the stack.
        transform_instance_type: of transform jobs.
        transform_instances: default of ``instances``.
    """

    uploads_bucket: str
    results_bucket: str
    work_bucket: str
    bulk_source_buckets: Names = ()
    bulk_concurrency: int
    segmentation_host: str
    sagemaker_mode: Literal["realtime", "async", "transform"] = "realtime"
    transform_model_name: str | None = None
    transform_model_arn: str | None = None
    transform_instance_type: str = ""
    transform_instances: int = 1

    @property
    def source_buckets(self) -> tuple[str, ...]:
        """The buckets that images may be in."""
        return (self.uploads_bucket, *self.bulk_source_buckets)


class Preparer:
    """Prepares runs.

    Args:
        config: defaults and capabilities of the stack.
        objects: S3.
        tags_of: returns the tags of a SageMaker resource.
    """

    def __init__(
        self, config: PrepareConfig, objects: BulkObjects, tags_of: Callable[[str], list[dict[str, str]]] = tags_of
    ) -> None:
        self._config, self._objects, self._tags_of = config, objects, tags_of

    def prepare(self, request: BulkRequest, execution: Execution) -> dict[str, Any]:
        """Return the state of the run: its settings, and the location of its items.

        Raises:
            InvalidRequestError: the request, or a row of its manifest, cannot be honored.
            InvalidOptionsError: an option of the run or of a row is invalid.
            SourceNotFoundError, StorageDeniedError, StorageUnavailableError: the manifest cannot be read.
        """
        child = self._child(request)
        transforms = request.engine == "batch-transform"
        Options.parse(request.options, self._config.presets)
        source = request.source
        if source.bucket is not None:
            self._check_bucket(source.bucket, child, "source.bucket")
        rows_key = f"{prefix_of(execution.name)}rows.jsonl"
        if source.manifest:
            self._write_rows(rows_key, self._rows_of_manifest(source.manifest), request, child)
        elif source.inventory:
            self._write_rows(rows_key, self._rows_of_inventory(source.inventory), request, child)
        elif transforms:  # each row is read twice: to request its mask, and to refine it
            self._write_rows(rows_key, self._rows_of_prefix(str(source.bucket), source.prefix or ""), request, child)
        reader = "listing" if source.bucket is not None and not transforms else "rows"
        return {
            "run": execution.model_dump(),
            "reader": reader,
            "child": child,
            "engine": request.engine,
            **({"transform": self._transform(request, execution)} if transforms else {}),
            "pbr_presets": self._config.pbr_presets,
            "bucket": source.bucket or self._config.uploads_bucket,
            "prefix": source.prefix or "",
            "rows_key": rows_key,
            # Those of rows are in the rows.
            "options": request.options if reader == "listing" else {},
            "max_concurrency": request.max_concurrency or self._config.bulk_concurrency,
            "tolerated_failure_percentage": _given(request.tolerated_failure_percentage, ALL_TOLERATED),
            "tolerated_failure_count": _given(request.tolerated_failure_count, MOST_TOLERATED),
            "batch": request.batch or DEFAULT_BATCH,
            "overwrite": request.overwrite,
            "results_prefix": f"{prefix_of(execution.name)}map",
        }

    def _child(self, request: BulkRequest) -> Literal["express", "standard"]:
        """Return the kind of children, which must be able to serve the host that the options name."""
        if request.engine == "batch-transform":
            self._check_engine(request)
            return "express"
        waiting = {"ecs", *(["sagemaker"] if self._config.sagemaker_mode == "async" else [])}
        default: Literal["express", "standard"] = "standard" if self._config.segmentation_host in waiting else "express"
        child = request.child or default
        host = request.options.get("segmentation_host")
        if child == "express" and host in waiting:
            raise InvalidRequestError(
                "Express children cannot wait for this segmentation host",
                field="options.segmentation_host",
                value=host,
                remedy='Set "child" to "standard", or leave out the host to segment on Lambda.',
            )
        if child == "standard" and request.overwrite:
            raise InvalidRequestError(
                "Standard children cannot compute results again that are cached",
                field="overwrite",
                value=True,
                remedy='Leave out "overwrite", or set "child" to "express" if the images can be segmented on Lambda.',
            )
        return child

    def _check_engine(self, request: BulkRequest) -> None:
        """Check that the stack can run a transform job, and that nothing else in the request contradicts it."""
        field, value, remedy = "engine", "batch-transform", ""
        host = request.options.get("segmentation_host", "auto")
        if self._config.transform_model_name is None:
            message = "The stack has no SageMaker model, which Batch Transform needs"
            remedy = "Deploy it with SageMakerImageUri, and with SageMakerMode=transform if it needs no endpoint."
        elif request.child == "standard":
            message, field, value = "Standard children cannot take masks of Batch Transform", "child", "standard"
            remedy = 'Leave out "child" or "engine".'
        elif host not in ("auto", "sagemaker"):
            message, field, value = "The engine decides where images are segmented", "options.segmentation_host", host
            remedy = 'Leave out the host or "engine".'
        if remedy:
            raise InvalidRequestError(message, field=field, value=value, remedy=remedy)

    def _transform(self, request: BulkRequest, execution: Execution) -> dict[str, Any]:
        """Return what the state machine needs for the transform job."""
        folder, prefix = f"s3://{self._config.work_bucket}/", requests_prefix(execution.name)
        kind = self._config.transform_instance_type
        has_gpu = kind.startswith("ml.g")
        return {
            "job_name": f"pbr-bulk-{sha256(execution.id.encode()).hexdigest()[:16]}",
            "model_name": self._config.transform_model_name,
            "tags": self._tags_of(str(self._config.transform_model_arn)),
            "requests_prefix": prefix,
            "requests_uri": f"{folder}{prefix}",
            "responses_uri": f"{folder}{prefix_of(execution.name)}transform/responses/",
            "instances": request.instances or self._config.transform_instances,
            "resources": {"InstanceType": kind, **({"TransformAmiVersion": _GPU_AMI} if has_gpu else {})},
            "environment": {"PBR_DEVICE": "cuda" if has_gpu else "cpu"},
        }

    def _check_bucket(self, bucket: str, child: str, field: str) -> None:
        if bucket not in self._config.source_buckets:
            raise InvalidRequestError(
                "The stack may not read this bucket",
                field=field,
                value=bucket,
                remedy=f"Use one of {', '.join(self._config.source_buckets)}, or add the bucket to BulkSourceBuckets.",
            )
        if child == "standard" and bucket != self._config.uploads_bucket:
            raise InvalidRequestError(
                "Standard children process images in the uploads bucket only",
                field=field,
                value=bucket,
                remedy=f'Set "child" to "express", or copy the images to {self._config.uploads_bucket}.',
            )

    def _write_rows(self, key: str, rows: Iterator[tuple[int, ManifestRow]], request: BulkRequest, child: str) -> None:
        """Write the checked rows, each with all its fields and with the options of the run."""
        count = 0
        with tempfile.TemporaryFile() as file:
            for number, row in rows:
                bucket = row.bucket or self._config.uploads_bucket
                try:
                    self._check_bucket(bucket, child, "bucket")
                    options = {**request.options, **row.requested}
                    Options.parse(options, self._config.presets)
                except BackgroundRemoverError as error:
                    raise type(error)(
                        f"Line {number} of the manifest is invalid: {error.message}",
                        field=error.field,
                        value=error.value,
                        remedy=error.remedy,
                    ) from None
                item = {"bucket": bucket, "key": row.key, "version_id": row.version_id, "options": options}
                file.write(json.dumps(item, ensure_ascii=False).encode() + b"\n")
                count += 1
            if not count:
                listed = request.source.bucket is not None
                raise InvalidRequestError(
                    "There is no image below the prefix" if listed else "The manifest names no image",
                    field="source",
                    value=request.source.model_dump(exclude_none=True),
                    remedy="Check bucket and prefix." if listed else "Add rows to it, or use another one.",
                )
            file.seek(0)
            self._objects.upload(self._config.work_bucket, key, file)

    def _open(self, address: ObjectAddress, field: str) -> IO[bytes]:
        own = address.bucket == self._config.results_bucket and address.key.startswith("bulk/")
        if not own:
            self._check_bucket(address.bucket, "express", f"{field}.bucket")
        try:
            return self._objects.open(address.bucket, address.key)
        except SourceNotFoundError:
            raise SourceNotFoundError(
                "The file does not exist",
                field=f"{field}.key",
                value=f"s3://{address.bucket}/{address.key}",
                remedy="Check bucket and key.",
            ) from None

    def _rows_of_manifest(self, address: ObjectAddress) -> Iterator[tuple[int, ManifestRow]]:
        name = address.key.lower()
        if not name.endswith((".csv", ".jsonl")):
            raise InvalidRequestError(
                "The manifest is neither a .csv nor a .jsonl file",
                field="source.manifest.key",
                value=address.key,
                remedy="Name it .csv if it has a header and rows, or .jsonl if each line is a JSON object.",
            )
        lines = _lines(self._open(address, "source.manifest"))
        yield from rows_of_json(lines) if name.endswith(".jsonl") else rows_of_csv(lines)

    def _rows_of_prefix(self, bucket: str, prefix: str) -> Iterator[tuple[int, ManifestRow]]:
        for number, key in enumerate(self._objects.keys(bucket, prefix), 1):
            if not key.endswith(FOLDERS):
                yield number, ManifestRow(bucket=bucket, key=key)

    def _rows_of_inventory(self, address: ObjectAddress) -> Iterator[tuple[int, ManifestRow]]:
        """Yield the current objects in an S3 Inventory. Folders, delete markers and older versions are left out."""
        with self._open(address, "source.inventory") as file:
            try:
                manifest = json.loads(file.read())
                columns = [name.strip() for name in manifest["fileSchema"].split(",")]
                files, csv_format = [str(one["key"]) for one in manifest["files"]], manifest["fileFormat"]
                columns.index("Bucket"), columns.index("Key")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InvalidRequestError(
                    f"The file is not the manifest.json of an S3 Inventory: {error}",
                    field="source.inventory.key",
                    value=address.key,
                    remedy="Use the key of the inventory's manifest.json.",
                ) from None
        if csv_format != "CSV":
            raise InvalidRequestError(
                "The inventory's format is not supported",
                field="source.inventory",
                value=csv_format,
                remedy="Configure the inventory with the format CSV.",
            )
        number = 0
        for key in files:
            with (
                self._open(ObjectAddress(bucket=address.bucket, key=key), "source.inventory") as packed,
                gzip.open(packed, "rt", encoding="utf-8", newline="") as text,
            ):
                for cells in csv.reader(text):
                    number += 1
                    row = dict(zip(columns, cells, strict=False))
                    name = unquote_plus(row["Key"])
                    current = row.get("IsLatest") != "false" and row.get("IsDeleteMarker") != "true"
                    if current and not name.endswith(FOLDERS):
                        yield (
                            number,
                            ManifestRow(bucket=row["Bucket"], key=name, version_id=row.get("VersionId") or None),
                        )


def _given(value: float | None, default: float) -> float:
    return default if value is None else value


def _lines(file: IO[bytes]) -> Iterator[str]:
    """Yield the lines of a UTF-8 file, which may start with a byte order mark.

    Raises:
        InvalidRequestError: a line is not UTF-8, or too long.
    """
    number = 0
    with file:
        while line := file.readline(_MAX_LINE_BYTES):
            number += 1
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise _bad_line(number, "is not UTF-8", str(error), "Save the file as UTF-8.") from None
            if len(line) == _MAX_LINE_BYTES:
                raise _bad_line(number, "is longer than 1 MiB", text, "Check that the file is a manifest.")
            yield text


def _bad_line(number: int, why: str, value: str, remedy: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"Line {number} of the manifest {why}", field=f"manifest line {number}", value=value, remedy=remedy
    )
