"""What a bulk run processes: a folder, a prefix of a bucket, a manifest, or an S3 Inventory."""

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final, Self

from client.errors import UsageError
from client.stack import Stack
from core.errors import InvalidRequestError

_MANIFESTS: Final = (".csv", ".jsonl")
_INVENTORY: Final = "manifest.json"
_MAX_SLUG_CHARS: Final = 30


@dataclass(frozen=True)
class Source:
    """What to process.

    Attributes:
        text: as it was given.
        folder: a folder on this machine.
        manifest: a manifest on this machine.
        bucket: a bucket.
        key: prefix of the images in the bucket, or key of a manifest or an inventory.
    """

    text: str
    folder: Path | None = None
    manifest: Path | None = None
    bucket: str | None = None
    key: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the source with this path or address.

        Raises:
            UsageError: if it does not exist, or is not a source.
        """
        if text.startswith("s3://"):
            bucket, _, key = text.removeprefix("s3://").partition("/")
            if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket):
                raise UsageError(
                    "Invalid bucket name", field="SOURCE", value=text, remedy="Use s3://BUCKET or s3://BUCKET/PREFIX/."
                )
            return cls(text, bucket=bucket, key=key)
        path = Path(text)
        if path.is_dir():
            return cls(text, folder=path.absolute())
        if not path.exists():
            raise UsageError(
                "The source does not exist",
                field="SOURCE",
                value=text,
                remedy="Pass a folder, an address such as s3://my-bucket/photos/, or a .csv or .jsonl manifest.",
            )
        if path.suffix.lower() not in _MANIFESTS:
            raise UsageError(
                "The source is neither a folder nor a .csv or .jsonl manifest",
                field="SOURCE",
                value=text,
                remedy="Process single images with pbr process.",
            )
        return cls(text, manifest=path.absolute())

    def new_run(self) -> str:
        """Return a name for a run that no other run has, e.g. ``shoes-20261130-091500-1f3a``."""
        name = self.text.rstrip("/").rpartition("/")[2]
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_MAX_SLUG_CHARS].strip("-")
        return f"{slug or 'run'}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"

    def check(self, stack: Stack) -> None:
        """Check that the stack may read the bucket, and that each row of a local manifest is valid.

        Raises:
            UsageError: if the stack may not, or a row is invalid; the message names its line.
        """
        if self.bucket:
            self._check_bucket(self.bucket, stack, "SOURCE", self.text, may_be_results=self.key.startswith("bulk/"))
        if self.manifest:
            with _named_by_line(self.manifest) as rows:
                for number, row in rows:
                    if bucket := row.get("bucket"):
                        self._check_bucket(bucket, stack, f"manifest line {number}", bucket)

    def request(self, stack: Stack, run: str) -> dict[str, Any]:
        """Return the ``source`` of the run's input. Uploads a local manifest."""
        if self.manifest:
            key, bucket = f"bulk/{run}/manifest{self.manifest.suffix.lower()}", stack.outputs["UploadsBucket"]
            with self.manifest.open("rb") as file:
                stack.s3.put_object(Bucket=bucket, Key=key, Body=file)
            return {"manifest": {"bucket": bucket, "key": key}}
        if self.key.endswith(f"/{_INVENTORY}"):
            return {"inventory": {"bucket": self.bucket, "key": self.key}}
        if self.key.lower().endswith(_MANIFESTS):
            return {"manifest": {"bucket": self.bucket, "key": self.key}}
        return {"bucket": self.bucket, "prefix": self.key}

    @staticmethod
    def _check_bucket(bucket: str, stack: Stack, field: str, value: str, *, may_be_results: bool = False) -> None:
        others = [name.strip() for name in stack.parameters.get("BulkSourceBuckets", "").split(",") if name.strip()]
        results = [stack.outputs["ResultsBucket"]] if may_be_results else []  # failure lists of earlier runs
        allowed = [stack.outputs["UploadsBucket"], *results, *others]
        if bucket not in allowed:
            raise UsageError(
                "The stack may not read this bucket",
                field=field,
                value=value,
                remedy=f"Use {allowed[0]}, or add the bucket to the parameter BulkSourceBuckets of the stack. A bucket "
                "of another account also needs a bucket policy that allows the stack's role to read it.",
            )


class _named_by_line:  # noqa: N801 - a context manager, used like a function
    """Opens a manifest and gives its rows with their line numbers. Invalid rows raise a UsageError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        self._file: IO[str] = self._path.open(encoding="utf-8-sig", newline="")
        return self._rows()

    def __exit__(self, *_exception: object) -> None:
        self._file.close()

    def _rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        from functions.contracts.bulk import rows_of_csv, rows_of_json

        count, read = 0, rows_of_json if self._path.suffix.lower() == ".jsonl" else rows_of_csv
        try:
            for number, row in read(self._file):
                count += 1
                yield number, row.model_dump()
        except InvalidRequestError as error:
            raise UsageError(error.message, field=error.field, value=error.value, remedy=error.remedy) from None
        except UnicodeDecodeError as error:
            raise self._error(f"The manifest is not UTF-8: {error}", "Save it as UTF-8.") from None
        if not count:
            raise self._error("The manifest names no image", "Add rows to it.")

    def _error(self, message: str, remedy: str) -> UsageError:
        return UsageError(message, field="SOURCE", value=str(self._path), remedy=remedy)
