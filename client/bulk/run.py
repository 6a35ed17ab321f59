"""Upload the images of a folder, start the bulk run, follow it, and write each result as soon as it is available."""

import base64
import csv
import itertools
import json
import math
import mimetypes
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from threading import Event, Lock
from typing import Any, Final, Protocol, TypeVar

from client.bulk.existing import Existing, existing
from client.bulk.state import Item, RunState
from client.bulk.stored import names, result_prefixes
from client.bulk.walk import walk
from client.errors import BulkRunError, DiskFullError, ResultNotFoundError, UsageError, client_error
from client.outputs import DISK_FULL, write
from client.stack import Stack
from core.errors import BackgroundRemoverError
from core.limits import check_bytes
from core.options import Options
from functions.contracts.failure_report import explain
from functions.contracts.history import execution_arn
from functions.contracts.object_keys import sidecar_key
from functions.contracts.spreadsheet import cell_text

BATCH: Final = 10
"""Most images of a child execution."""

BATCH_TRANSFORM: Final = "batch-transform"
"""Engine that segments all images of an execution in one transform job."""

_Value = TypeVar("_Value")

_THREADS: Final = 8
_LEAST_BATCHES: Final = 12
_FIRST_S: Final = 20.0
_LARGE_BYTES: Final = 16 * 1024 * 1024
_PAUSE_IN_POLLS: Final = 4  # listing new results takes more than asking for a status
_SHARE_OF_LISTING: Final = 4  # listing takes at most a fifth of the time
_LONGEST_PAUSE_S: Final = 60.0
_CLOCKS: Final = timedelta(seconds=30)  # difference between the clocks of S3 and Step Functions
_ABSENT: Final = ("NoSuchKey", "NoSuchVersion", "404", "MethodNotAllowed")


class Listener(Protocol):
    """Receives what happens to images, from several threads."""

    def ended(self, item: Item, data: tuple[bytes | None, bytes] | None) -> None:
        """Handle the end of an image.

        Args:
            item: the image, with its new status.
            data: image, None if it cannot be read, and result; None if no contact sheet shows the item.
        """

    def progressed(self) -> None:
        """Handle progress of another kind."""

    def scanned(self, kept: int, changed: Counter[str], replaced: int) -> None:
        """Handle the results that exist before the run.

        Args:
            kept: number of those that are kept.
            changed: options that others were not made with, and the number of those.
            replaced: number of results that were made with other options, which are computed again.
        """


class BulkRun:
    """A run: its images, and what it does on a stack.

    Each step continues where the last process stopped.

    Args:
        stack: the stack.
        name: name of the run.
        state: the state of the run.
        listener: receives progress.
        save: writes files completely or not at all.
        first_s: seconds after which an execution processes what is uploaded, if uploads take longer.

    Attributes:
        error: of the first execution that failed as a whole, with ``message`` and ``remedy``; None without one.
        warnings: what executions could not honor.
    """

    def __init__(
        self,
        stack: Stack,
        name: str,
        state: RunState,
        listener: Listener,
        save: Callable[[Mapping[Path, bytes]], None] = write,
        first_s: float = _FIRST_S,
    ) -> None:
        self._first_s = first_s
        self._stopped = Event()  # ends the uploads
        self.error: dict[str, Any] | None = None
        self.warnings: list[str] = []
        self._stack, self._name, self._state, self._listener, self._save = stack, name, state, listener, save
        self._settings: dict[str, Any] = state.load("settings")
        self._large = Lock()  # a large file at a time is in memory
        self._listing_s = 0.0
        self._newest: dict[str, datetime] = {}  # times of the newest sidecars of the last sweep, by prefix
        self._prefixes: list[str] | None = None
        self.map_counts: Mapping[str, int] = {}

    @property
    def execution(self) -> str:
        """Name of the current execution: that of the run, with a number if it is not the first one."""
        attempt = self._state.load("attempt") or 1
        return self._name if attempt == 1 else f"{self._name}-{attempt}"

    @property
    def _execution_arn(self) -> str:
        return execution_arn(self._stack.output("BulkMachineArn"), self.execution)

    @property
    def _is_local(self) -> bool:
        return "folder" in self._settings

    @property
    def _out(self) -> Path | None:
        return Path(self._settings["out"]) if self._settings["out"] else None

    def process(self, *, resumed: bool) -> dict[str, Any]:
        """Do what is missing, and return the last description of the execution; empty if there was nothing to do.

        Args:
            resumed: whether an earlier process may have done a part.

        Raises:
            BulkRunError: the run cannot start, or failed as a whole.
            DiskFullError: results cannot be written.
        """
        if resumed:
            self._prepare_resumption()
        found: dict[str, Any] = {}
        if self._is_local:
            found = self._process_folder(resumed=resumed)
        elif self._state.load("listed"):
            self._fetch_ready()
        else:
            self.start()
            found = self.follow()
        self._state.save("ended", True)
        return found

    def _process_folder(self, *, resumed: bool) -> dict[str, Any]:
        """Upload the images, and process them in one execution, or in several ones if uploads take long.

        One execution runs at a time, and the next one processes what was uploaded meanwhile.
        """
        if not self._state.load("scanned"):
            self.scan()
        found: dict[str, Any] = {}
        # A transform job takes minutes to start: one for all images.
        first_s = math.inf if self._settings["limits"].get("engine") == BATCH_TRANSFORM else self._first_s
        with ThreadPoolExecutor(1) as pool:
            first, uploading = time.monotonic() + first_s, pool.submit(self.upload, check=resumed)
            try:
                while self._wait_for_uploads(uploading, first):
                    self.start(complete=uploading.done())
                    found = self.follow()
                    if uploading.done() and not self._state.counts()["uploaded"]:
                        break
                    self._begin_next_execution()
                uploading.result()  # raises its error
            finally:
                self._stopped.set()
        return found

    def _wait_for_uploads(self, uploading: "Future[None]", first: float) -> bool:
        """Wait until an execution can start; return whether there is something for it to do.

        Args:
            uploading: the uploads.
            first: when the first execution may start before the uploads have ended.
        """
        while not uploading.done() and not self._state.load("started"):
            counts = self._state.counts()
            processed = counts["done"] + counts["cached"]
            if time.monotonic() >= first and counts["uploaded"] > processed:
                break  # at least twice as many each time, so that there are few executions
            wait([uploading], timeout=self._stack.poll_s)
        if uploading.done():
            uploading.result()
        return bool(self._state.load("started") or self._state.counts()["uploaded"])

    def _begin_next_execution(self) -> None:
        self._state.save("attempt", (self._state.load("attempt") or 1) + 1)
        self._state.save("started", False)

    def scan(self) -> None:
        """Find the images of the folder.

        Those are kept that have a result which was made with the same options, and is not older than the image.
        """
        settings = self._settings
        skip = [settings["out"]] if settings["out"] else []
        found = walk(settings["folder"], settings["include"], settings["exclude"], skip)
        self._state.add(self._name, found, settings["suffix"])
        if not settings["overwrite"] and self._out is not None:
            self._keep(self._out)
        self._state.save("scanned", True)
        for item in self._state.items("failed"):
            self._listener.ended(item, None)

    def _keep(self, out: Path) -> None:
        """Record the images whose results are kept."""
        options = Options.parse(self._settings["options"], self._stack.presets)
        default_model, background = self._stack.parameters.get("DefaultModel"), self._settings.get("background_image")
        background_ns = Path(background).stat().st_mtime_ns if background else 0
        changed: Counter[str] = Counter()
        kept = replaced = 0

        def up_to_date() -> Iterator[tuple[Item, Existing]]:
            nonlocal kept, replaced
            for item in self._state.items("found"):
                found = existing(out, item, options, default_model, max(item.mtime_ns or 0, background_ns))
                if found and not found.changed:
                    kept += 1
                    yield item, found
                elif found:
                    replaced += 1
                    changed.update(found.changed)

        each(self._keep_one, up_to_date())
        self._listener.scanned(kept, changed, replaced)

    def _keep_one(self, found: tuple[Item, Existing]) -> None:
        item, result = found
        data = result.path.read_bytes() if self._settings["sheet"] else None
        self._end(item, {"status": "kept", "result": str(result.path), **_quality(result.sidecar)}, data)

    def upload(self, *, check: bool) -> None:
        """Upload the images that are not uploaded, in parallel.

        Args:
            check: skip those that an earlier process has uploaded without recording it.
        """
        waiting = itertools.takewhile(lambda _: not self._stopped.is_set(), self._state.items("found"))
        each(lambda item: self._upload(item, check=check), waiting)

    def start(self, *, complete: bool = True) -> None:
        """Start the execution of the run, unless it was started.

        Args:
            complete: whether all images are uploaded.
        """
        if self._state.load("started"):
            return
        if self._is_local:
            self._state.assign(self.execution)
            source = self._source_of_uploads(complete=complete)
        else:
            source = self._settings["source"]
        request = {"source": source, "options": self._settings["options"], **self._settings["limits"]}
        if self._settings["overwrite"] and not self._is_local:  # uploads of a folder have no results yet
            request["overwrite"] = True
        if self._is_local:  # small batches, so that few images are processed in parallel, too
            request["batch"] = max(1, min(BATCH, self._state.count_assigned(self.execution) // _LEAST_BATCHES))
        stepfunctions = self._stack.stepfunctions
        with suppress(stepfunctions.exceptions.ExecutionAlreadyExists):  # it was started, and has ended since
            stepfunctions.start_execution(
                stateMachineArn=self._stack.output("BulkMachineAlias"),
                name=self.execution,
                input=json.dumps(request, sort_keys=True),
            )
        self._state.save("started", True)

    def _source_of_uploads(self, *, complete: bool) -> dict[str, Any]:
        """Return the source of an execution: the prefix of the run, or a manifest if that has other images, too."""
        bucket = self._stack.outputs["UploadsBucket"]
        if complete and self.execution == self._name:
            return {"bucket": bucket, "prefix": f"bulk/{self._name}/"}
        key = f"bulk/{self.execution}.jsonl"  # not below the prefix
        with tempfile.TemporaryFile() as file:
            for item in self._assigned():
                file.write(json.dumps({"key": item.key, "version_id": item.version_id}).encode() + b"\n")
            file.seek(0)
            self._stack.s3.put_object(Bucket=bucket, Key=key, Body=file)
        return {"manifest": {"bucket": bucket, "key": key}}

    def _assigned(self) -> Iterator[Item]:
        """Yield the images of the current execution that have no outcome yet."""
        return (item for item in self._state.items("uploaded") if item.execution == self.execution)

    def follow(self) -> dict[str, Any]:
        """Write results as they become available, until the execution ends; return its description.

        Raises:
            BulkRunError: the execution failed before it processed an image.
        """
        while True:
            found = self._describe()
            self._listing_s = 0.0
            if self._is_local:
                self._sweep()
            else:
                self._count()
                self._sweep_stored(found["startDate"])
            if found["status"] != "RUNNING":
                break
            self._listener.progressed()
            self._pause()
        self._conclude(found)
        return found

    def _pause(self) -> None:
        """Wait until new results are worth a listing, or until the execution ends."""
        poll_s = self._stack.poll_s
        pause_s = min(max(_PAUSE_IN_POLLS * poll_s, _SHARE_OF_LISTING * self._listing_s), _LONGEST_PAUSE_S)
        until = time.monotonic() + pause_s
        while (left_s := until - time.monotonic()) > 0 and self._describe()["status"] == "RUNNING":
            time.sleep(min(poll_s, left_s))

    def summary(self) -> dict[str, Any] | None:
        """Return the summary of the execution, or None if it wrote none."""
        return self._stack.document(f"bulk/{self.execution}/summary.json")

    def counts(self) -> Counter[str]:
        """Return the number of images by status, those of the Map Run while images in S3 are processed."""
        if self.map_counts and not self._state.load("listed"):
            ended = {"done": self.map_counts.get("succeeded", 0), "failed": self.map_counts.get("failed", 0)}
            return Counter({**ended, "uploaded": self.map_counts.get("total", 0) - sum(ended.values())})
        return self._state.counts()

    def original(self, item: Item) -> bytes | None:
        """Return the content of an image, or None if it cannot be read."""
        try:
            if self._is_local:
                return Path(self._settings["folder"], item.path).read_bytes()
            version = {"VersionId": item.version_id} if item.version_id else {}
            response = self._stack.s3.get_object(Bucket=item.bucket or "", Key=item.key, **version)  # type: ignore[arg-type]
            return response["Body"].read()
        except OSError:
            return None
        except client_error():
            return None

    def _prepare_resumption(self) -> None:
        """Decide what to do again.

        If the last process reported the end of the run, that is what failed then. If it was interrupted, an execution
        that has written its summary meanwhile is not repeated, whereas one that was stopped is.
        """
        known = self._find() if self._state.load("started") else None
        is_lost = known is None and self._state.load("started")
        is_stopped = known is not None and known["status"] not in ("RUNNING", "SUCCEEDED") and self.summary() is None
        if self._state.load("ended"):
            self._state.forget_failures()
            self._state.save("scanned", False)
        elif is_lost:  # another embedded cloud, or the history of the execution has expired
            self._state.reset("uploaded")
        if self._state.load("ended") or is_lost or is_stopped:
            self._begin_next_execution()
            self._state.save("listed", False)
        self._state.save("ended", False)

    def _upload(self, item: Item, *, check: bool) -> None:
        try:
            check_bytes(item.size or 0)
            with self._large if (item.size or 0) > _LARGE_BYTES else nullcontext():
                data = Path(self._settings["folder"], item.path).read_bytes()
                check_bytes(len(data))
                version_id = self._put(item, data, check=check)
        except (BackgroundRemoverError, OSError) as error:
            self._fail(item, error)
            return
        digest = sha256(data).hexdigest()
        self._state.update(item, status="uploaded", sha256=digest, version_id=version_id, size=len(data))
        self._listener.progressed()

    def _put(self, item: Item, data: bytes, *, check: bool) -> str | None:
        """Upload a file with its checksum, which S3 compares, and return the version."""
        bucket, checksum = self._stack.outputs["UploadsBucket"], base64.b64encode(sha256(data).digest()).decode()
        if check:
            try:
                head = self._stack.s3.head_object(Bucket=bucket, Key=item.key, ChecksumMode="ENABLED")
            except client_error():
                pass
            else:
                if head.get("ChecksumSHA256") == checksum:
                    return head.get("VersionId")
        return self._stack.s3.put_object(
            Bucket=bucket,
            Key=item.key,
            Body=data,
            ContentType=mimetypes.guess_type(item.key, strict=False)[0] or "application/octet-stream",
            ChecksumSHA256=checksum,
        ).get("VersionId")

    def _find(self) -> dict[str, Any] | None:
        stepfunctions = self._stack.stepfunctions
        try:
            return dict(stepfunctions.describe_execution(executionArn=self._execution_arn))
        except stepfunctions.exceptions.ExecutionDoesNotExist:
            return None

    def _describe(self) -> dict[str, Any]:
        found = self._find()
        if found is None:
            raise BulkRunError(
                "The execution of the run no longer exists",
                field="execution",
                value=self.execution,
                remedy=f"Continue with pbr bulk --resume {self._name}.",
            )
        return found

    def _sweep(self) -> None:
        """Fetch new results and failure reports."""
        prefix = f"bulk/{self._name}/"
        each(self._fetch_named, self._listed(f"results/{prefix}", "results/"))
        each(self._read_report, self._listed(f"failed/{prefix}", "failed/"))

    def _listed(self, prefix: str, cut: str) -> Iterator[tuple[str, Item]]:
        """Yield sidecars or failure reports, each with its image, of images without an outcome."""
        pages = self._stack.s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._stack.outputs["ResultsBucket"], Prefix=prefix
        )
        for page in self._timed(pages):
            for found in page.get("Contents", []):
                key = found["Key"]
                if not key.endswith(".json"):
                    continue
                source = key.removeprefix(cut).removesuffix(".json")
                if cut == "results/":
                    source = source.rpartition(".")[0]
                item = self._state.find(source)
                if item and item.status == "uploaded" and item.execution == self.execution:
                    yield key, item

    def _sweep_stored(self, started: datetime) -> None:
        """Fetch new results of images in S3. Those that existed before are fetched at the end of the execution.

        Args:
            started: when the execution started.
        """
        if self._out is None:
            return
        if self._prefixes is None:
            self._prefixes = result_prefixes(self._stack, self._settings["source"])
        for prefix in self._prefixes:
            each(self._fetch_new, self._new_sidecars(prefix, self._newest.get(prefix, started)))

    def _new_sidecars(self, prefix: str, newest: datetime) -> Iterator[str]:
        since = newest - _CLOCKS
        pages = self._stack.s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._stack.outputs["ResultsBucket"], Prefix=prefix
        )
        for page in self._timed(pages):
            for found in page.get("Contents", []):
                if found["Key"].endswith(".json") and found["LastModified"] >= since:
                    newest = max(newest, found["LastModified"])
                    if not self._state.is_fetched(found["Key"].removesuffix(".json"), self.execution):
                        yield found["Key"]
        self._newest[prefix] = newest

    def _fetch_new(self, key: str) -> None:
        sidecar = self._stack.document(key)
        if sidecar is None or sidecar["execution"]["name"] != self.execution:
            return
        source, result = sidecar["source"], sidecar["result"]["key"]
        row = {**{name: source[name] for name in ("bucket", "key", "version_id")}, "status": "ready"}
        self._add([{**row, **self._names(row), "result_key": result}])
        item = self._state.find(source["key"], source["bucket"])
        if item and not self._state.is_fetched(result, self.execution):
            with suppress(ResultNotFoundError):  # reported at the end, unless a newer one is there then
                self._save_result(item, sidecar)

    def _add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add objects, and rename results whose names turn out to be equal to others on some file system."""
        for item in self._state.add_objects(rows, self.execution):
            old = item.result or ""
            new = str((self._out or Path()) / (item.target + Path(old).suffix))
            if old.startswith("s3://"):
                continue
            for name, renamed in ((old, new), (sidecar_key(old), sidecar_key(new))):
                with suppress(FileNotFoundError):
                    Path(name).replace(renamed)
            self._state.update(item, result=new)

    def _names(self, row: Mapping[str, Any]) -> dict[str, str]:
        uploads, suffix = self._stack.outputs["UploadsBucket"], self._settings["suffix"]
        return names(self._settings["source"], suffix, row["bucket"], row["key"], uploads)

    def _timed(self, pages: Iterable[_Value]) -> Iterator[_Value]:
        """Yield pages, and add the time that S3 takes for them to ``_listing_s``; results are fetched meanwhile."""
        begun = time.monotonic()
        for page in pages:
            self._listing_s += time.monotonic() - begun
            yield page
            begun = time.monotonic()

    def _fetch_named(self, listed: tuple[str, Item]) -> None:
        key, item = listed
        sidecar = self._stack.document(key)
        if sidecar and sidecar["source"]["sha256"] == item.sha256:
            self._save_result(item, sidecar)

    def _read_report(self, listed: tuple[str, Item]) -> None:
        key, item = listed
        report = self._stack.document(key)
        if report and report["execution"]["name"] == self.execution:
            self._record_failure(item, report)

    def _save_result(self, item: Item, sidecar: dict[str, Any]) -> None:
        """Download a result, write it and its sidecar, and record it."""
        found = sidecar["result"]
        version = {"VersionId": found["version_id"]} if found["version_id"] else {}
        try:
            response = self._stack.s3.get_object(Bucket=found["bucket"], Key=found["key"], **version)
        except client_error() as error:
            if error.response["Error"]["Code"] not in _ABSENT:  # type: ignore[attr-defined]
                raise
            if self._is_local:
                return  # a retry replaces it; its new sidecar follows
            raise ResultNotFoundError(
                "The result no longer exists: it was deleted or has expired",
                field="result.key",
                value=found["key"],
                remedy="Process the image again.",
            ) from None
        data, out = response["Body"].read(), self._out
        path = None
        if out is not None:
            path = out / (item.target + Path(found["key"]).suffix)
            document = (json.dumps(sidecar, indent=2) + "\n").encode()
            try:
                self._save({path: data, Path(sidecar_key(str(path))): document})
            except OSError as error:
                if error.errno in DISK_FULL:
                    raise self._disk_full(path) from None
                self._fail(item, error)
                return
        changed = {
            "status": "cached" if sidecar["cache"]["hit"] or item.status == "ready_cached" else "done",
            "result": str(path) if path else None,
            "result_key": found["key"],
            "execution": self.execution,
            **_quality(sidecar),
            "seconds": round(sum(sidecar["timings_s"].values()), 3),
        }
        self._end(item, changed, data)

    def _end(self, item: Item, changed: dict[str, Any], data: bytes | None) -> None:
        self._state.update(item, **changed)
        ended = replace(item, **changed)
        shown = data is not None and self._settings["sheet"]
        self._listener.ended(ended, (self.original(item), data) if data is not None and shown else None)

    def _fail(self, item: Item, error: Exception) -> None:
        self._state.fail(item, error)
        self._listener.ended(self._state.find(item.key, item.bucket) or item, None)

    def _record_failure(self, item: Item, facts: Mapping[str, Any], status: str = "failed") -> None:
        self._end(item, {"status": status, **{name: facts[name] for name in ("error", "message", "remedy")}}, None)

    def _disk_full(self, path: Path) -> DiskFullError:
        return DiskFullError(
            "The disk is full",
            field="--out",
            value=str(path.parent),
            remedy=f"Free space, and continue with pbr bulk --resume {self._name}.",
        )

    def _count(self) -> None:
        """Read the counts of the Map Run."""
        stepfunctions = self._stack.stepfunctions
        runs = stepfunctions.list_map_runs(executionArn=self._execution_arn)["mapRuns"]
        for found in [run for run in runs if "/Masks:" not in run["mapRunArn"]][:1]:  # that only requests masks
            counts = stepfunctions.describe_map_run(mapRunArn=found["mapRunArn"])["itemCounts"]
            self.map_counts = {name: int(count) for name, count in counts.items() if isinstance(count, int)}

    def _conclude(self, found: dict[str, Any]) -> None:
        """Record the outcome of the images that have none yet."""
        summary = self.summary()
        if summary:
            self.error = self.error or summary.get("error")
            self.warnings += _warnings(summary)
            costs = self._state.load("costs") or {}
            self._state.save("costs", {**costs, self.execution: summary["cost"]["total_usd"]})
        if summary is None and found["status"] != "SUCCEEDED":
            facts = self._failure(found)
            if not self._state.counts()["done"]:
                self._state.save("ended", True)
                raise BulkRunError(
                    facts["message"],
                    field=facts["field"] or "execution",
                    value=facts["value"] or self.execution,
                    remedy=facts["remedy"],
                )
            self.error = self.error or facts  # what is done is reported first
        if self._is_local:
            self._conclude_uploads(summary)
            return
        if summary:
            self._add(self._rows(summary["files"]["items"]))
            self._state.save("listed", True)
            for item in self._state.items("failed", "not_done"):
                self._listener.ended(item, None)
            self._fetch_ready()

    def _failure(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return why an execution ended without a summary."""
        if found["status"] == "ABORTED" and not found.get("error"):
            message, remedy = "The execution was stopped", f"Continue with pbr bulk --resume {self._name}."
            return {"error": "ExecutionAborted", "message": message, "field": None, "value": None, "remedy": remedy}
        return explain({"Error": found.get("error") or found["status"], "Cause": found.get("cause") or ""})

    def _conclude_uploads(self, summary: dict[str, Any] | None) -> None:
        if summary and any(True for _ in self._assigned()):
            for row in self._csv(summary["files"]["items"]):
                item = self._state.find(row["key"])
                is_missing = item and item.status == "uploaded" and item.execution == self.execution
                if item and is_missing and row["status"] in ("failed", "not_done"):
                    facts = row if row["error"] else _NOT_DONE
                    self._record_failure(item, facts, row["status"])
        for item in self._assigned():
            self._record_failure(item, _NOT_DONE, "not_done")

    def _rows(self, key: str) -> Iterator[dict[str, Any]]:
        """Yield the images of a run in S3 as items."""
        for row in self._csv(key):
            status = {"done": "ready", "cached": "ready_cached"}.get(row["status"], row["status"])
            review = {"True": True, "False": False}.get(row["review"])
            yield {
                **{name: value or None for name, value in row.items()},
                **(_NOT_DONE if status == "not_done" else {}),
                **self._names(row),
                "status": status,
                "review": review,
                "score": float(row["score"]) if row["score"] else None,
                "seconds": float(row["seconds"] or 0),
            }

    def _csv(self, key: str) -> Iterator[dict[str, str]]:
        body = self._stack.s3.get_object(Bucket=self._stack.outputs["ResultsBucket"], Key=key)["Body"]
        lines = (line.decode() + "\n" for line in body.iter_lines())
        for row in csv.DictReader(lines):
            yield {name: cell_text(cell) for name, cell in row.items()}

    def _fetch_ready(self) -> None:
        """Download the results of images in S3; without ``--out``, only record them."""
        each(self._fetch_object, self._state.items("ready", "ready_cached"))

    def _fetch_object(self, item: Item) -> None:
        status = "cached" if item.status == "ready_cached" else "done"
        if self._out is None:
            result = f"s3://{self._stack.outputs['ResultsBucket']}/{item.result_key}"
            self._end(item, {"status": status, "result": result}, None)
            return
        try:
            sidecar = self._stack.document(sidecar_key(item.result_key or ""))
            if sidecar is None:
                raise ResultNotFoundError(
                    "The result no longer exists: it was deleted or has expired",
                    field="result.key",
                    value=item.result_key,
                    remedy="Process the image again.",
                )
            if not self._settings["overwrite"] and (path := self._same_result(item, sidecar)):
                self._end(item, {"status": "kept", "result": str(path)}, None)
            else:
                self._save_result(item, sidecar)
        except ResultNotFoundError as error:
            self._fail(item, error)

    def _same_result(self, item: Item, sidecar: dict[str, Any]) -> Path | None:
        """Return the result on this machine that has this sidecar, or None."""
        path = (self._out or Path()) / (item.target + Path(item.result_key or "").suffix)
        try:
            saved = json.loads(Path(sidecar_key(str(path))).read_bytes())
        except (OSError, ValueError):
            return None
        return path if saved == sidecar and path.exists() else None


_NOT_DONE: Final = {
    "error": "NotDoneError",
    "message": "The run ended before this image",
    "remedy": "Continue the run with --resume.",
}


def _warnings(summary: dict[str, Any]) -> Iterator[str]:
    """Yield what an execution could not honor."""
    transform = summary.get("transform")
    if transform and transform["status"] != "Completed":
        reason = f": {transform['reason']}" if transform["reason"] else ""
        yield f"Transform job {transform['job']} {transform['status'].lower()}{reason}"
    if degraded := summary.get("degraded"):
        yield f"{degraded} segmented on Lambda because the requested host failed"


def check_engine(engine: str | None, stack: Stack) -> None:
    """Check that the stack can segment with an engine, before images are uploaded.

    Raises:
        UsageError: if it has no SageMaker model for Batch Transform.
    """
    if engine == BATCH_TRANSFORM and "SageMakerModelName" not in stack.outputs:
        raise UsageError(
            "The stack has no SageMaker model, which Batch Transform needs",
            field="--engine",
            value=engine,
            remedy="Deploy it with SageMakerImageUri, and with SageMakerMode=transform if it needs no endpoint.",
        )


def each(function: Callable[[_Value], None], values: Iterable[_Value]) -> None:
    """Call a function for each value, in threads. At most a few values wait. The first error ends it."""
    with ThreadPoolExecutor(_THREADS) as pool:
        running: set[Future[None]] = set()
        for value in values:
            running.add(pool.submit(function, value))
            if len(running) >= 2 * _THREADS:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
        for future in running:
            future.result()


def _quality(sidecar: Mapping[str, Any]) -> dict[str, Any]:
    quality = sidecar["quality"]
    return {"score": quality["score"], "review": quality["review"], "reasons": ", ".join(quality["reasons"])}
