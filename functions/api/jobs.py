"""Start jobs, report their state, and delete them."""

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from core.errors import InvalidOptionsError, PermanentError, SourceNotFoundError
from core.image.sniff import sniff
from core.limits import check_bytes
from core.options import Options
from core.segmentation.registry import check_name
from functions.api.auth import Caller
from functions.api.billing import credits_for, credits_of_result, is_free
from functions.api.config import ApiConfig
from functions.api.problems import Problem
from functions.api.repository import JobRecord, JobRepository, caller_prefix
from functions.api.requests import ObjectRequest, ProcessRequest, file_name
from functions.api.schemas import UploadRequest
from functions.contracts.history import Row, execution_arn, failure_of, newest_stage, rows
from functions.contracts.object_keys import background_key, failure_key
from functions.contracts.webhook import RETRY
from functions.runtime.edge import Edge, result_url
from functions.runtime.erasure import Erasure
from functions.runtime.handler import logger
from functions.runtime.safe_http import Fetched
from functions.runtime.store import Store

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient

URL_LIFETIME_S: Final = 3600
"""Lifetime of presigned URLs."""

_FIRST_POLL_S: Final = 0.1
_POLL_BACKOFF: Final = 1.2  # adds about a tenth to a job's duration and keeps the number of polls low
_MAX_POLL_S: Final = 1.0
_MAX_EVENTS: Final = 1000
_LAST_EVENTS: Final = 5  # the end, and the entry into the state before it

_MAX_START_S: Final = 900
"""A job without an execution at this age was not started, as a request ends within 30 s."""


class Fetch(Protocol):
    """Downloads a URL from a request; ``field`` is the request's member for error messages."""

    def __call__(self, url: str, *, field: str) -> Fetched:
        """Return the content; raises the errors of :func:`functions.runtime.safe_http.get`."""


@dataclass(frozen=True)
class JobState:
    """The state of a job.

    Attributes:
        job: the job.
        status: ``queued`` until the execution exists.
        credits: price of an ended job.
        stage: the current state of a running execution.
        sidecar: the result's sidecar, if the job succeeded.
        report: ``error``, ``message``, ``field``, ``value`` and ``remedy``, if the job failed.
    """

    job: JobRecord
    status: Literal["queued", "running", "succeeded", "failed"]
    stage: str | None = None
    sidecar: Mapping[str, Any] | None = None
    report: Mapping[str, Any] | None = None
    credits: int | None = None

    @property
    def is_ended(self) -> bool:
        """Whether the job has a result or has failed."""
        return self.status in ("succeeded", "failed")


class JobService:
    """The jobs of one stack.

    Args:
        config: the stack's resources and limits.
        repository: the table of jobs.
        store: S3.
        edge: signs URLs of results; None if S3 does.
        erasure: deletes images and results.
        stepfunctions: the Step Functions client.
        fetch: downloads image URLs.
    """

    def __init__(
        self,
        config: ApiConfig,
        *,
        repository: JobRepository,
        store: Store,
        edge: Edge | None,
        erasure: Erasure,
        stepfunctions: "SFNClient",
        fetch: Fetch,
    ) -> None:
        self._config, self._repository, self._store, self._erasure = config, repository, store, erasure
        self._edge, self._stepfunctions, self._fetch = edge, stepfunctions, fetch

    def run(self, caller: Caller, request: ProcessRequest, *, idempotency_key: str | None, deadline: float) -> JobState:
        """Start a job, and wait for its end until ``deadline``, in seconds since 1970."""
        return self.wait(self.submit(caller, request, idempotency_key=idempotency_key), deadline)

    def submit(
        self, caller: Caller, request: ProcessRequest | ObjectRequest, *, idempotency_key: str | None
    ) -> JobRecord:
        """Charge and start a job, once per idempotency key.

        Raises:
            Problem: the request is invalid, the quota is used up, or too many jobs are in flight. Nothing was started.
            BackgroundRemoverError: the image or its URL is invalid. Nothing was started or charged.
        """
        price = credits_for(self._validate(request).precision_level)
        try:
            job, is_new = self._repository.create(caller, request, idempotency_key, price)
        except Problem as problem:
            if problem.code != "too_many_jobs":
                raise
            self._settle_ended(caller)
            job, is_new = self._repository.create(caller, request, idempotency_key, price)
        logger.append_keys(job_id=job.id)
        if not is_new and self._describe(job) is not None:
            logger.info("job exists")
            return job
        try:
            execution_input = self._execution_input(job, request, caller)
            self._repository.record_start(job)
        except Exception:
            if is_new:  # unless a concurrent request with the same key has started the job
                self._repository.cancel(job, max_starts=0)
            raise
        try:
            self._start(job, execution_input)
        except Exception:
            if is_new:
                self._repository.cancel(job, max_starts=1)
            raise
        logger.info("job started")
        return job

    def wait(self, job: JobRecord, deadline: float) -> JobState:
        """Wait until a job has ended, or until the deadline.

        This polls S3, because Step Functions allows few calls per second and account.
        """
        pause_s = _FIRST_POLL_S
        while (state := self._outcome(job)) is None:
            if time.time() + pause_s > deadline:
                return self.state(job)
            time.sleep(pause_s)
            pause_s = min(_POLL_BACKOFF * pause_s, _MAX_POLL_S)
        return state

    def state(self, job: JobRecord) -> JobState:
        """Return the state of a job, with the stage of a running one."""
        state = self._brief_state(job)
        if state.status != "running":
            return state
        newest_first = self._stepfunctions.get_execution_history(
            executionArn=self._arn(job), reverseOrder=True, maxResults=20, includeExecutionData=False
        )["events"]
        return JobState(job, "running", stage=newest_stage(newest_first))

    def _brief_state(self, job: JobRecord) -> JobState:
        """Return the state of a job without its stage."""
        if (state := self._outcome(job)) is not None:
            return state
        execution = self._describe(job)
        if execution is None:
            return JobState(job, "queued")
        if execution["status"] == "RUNNING":
            return JobState(job, "running")
        if execution["status"] == "SUCCEEDED":
            return self._succeeded(job, json.loads(execution["output"]))
        error = execution.get("error", execution["status"])
        message = "The job ended without a result"
        unknown = {"error": error, "message": message, "field": None, "value": None, "remedy": None}
        return self._failed(job, self._recorded_failure(job) or unknown)

    def _settle_ended(self, caller: Caller) -> None:
        """Settle the caller's jobs in flight that have ended, though their state was not asked for."""
        for job in self._repository.in_flight(caller):
            state = self._brief_state(job)  # settles it
            if state.status == "queued" and job.age_s > _MAX_START_S:  # the request that created it was interrupted
                self._repository.settle(job, 0)

    def events(self, job: JobRecord) -> list[Row]:
        """Return the first 1,000 events of a job's execution, oldest first."""
        try:
            history = self._stepfunctions.get_execution_history(
                executionArn=self._arn(job), maxResults=_MAX_EVENTS, includeExecutionData=False
            )
        except self._stepfunctions.exceptions.ExecutionDoesNotExist:
            return []
        return rows(history["events"])

    def delete(self, job: JobRecord) -> None:
        """Stop a running job, and delete the job, its images and all that was derived from them.

        Objects that were not uploaded through the API are kept, with their results. A stage that runs when the job is
        stopped may still write its output; no other job uses it, and it expires.
        """
        arn = self._arn(job)
        running = (arn,) if self._brief_state(job).status == "running" else ()
        find = self._erasure.of_source if job.is_callers_upload else self._erasure.of_executions
        traces = find(job.source_key, [arn], running)
        if self._erasure.erase(traces):  # another job of the caller computes a cut-out, and deletes it
            self._store.delete_permanently(traces.results)
        self._repository.delete(job)

    def upload_form(self, caller: Caller, request: UploadRequest) -> dict[str, Any]:
        """Return a presigned form for uploading an image, and the image's key."""
        key = f"{caller_prefix(caller.id)}{uuid.uuid4()}/{file_name(request.name)}"
        form = self._store.upload_form(
            self._config.uploads_bucket,
            key,
            request.content_type,
            request.max_bytes,
            URL_LIFETIME_S,
            sha256=request.sha256,
        )
        return {"key": key, **form}

    def result(self, state: JobState) -> bytes:
        """Return the result of a successful job."""
        location = self._location(state)
        return self._store.fetch(location["bucket"], location["key"], version_id=location["version_id"]).data

    def result_url(self, state: JobState) -> str:
        """Return a signed URL of the result of a successful job, valid for one hour."""
        return result_url(self._location(state), self._store, self._edge, URL_LIFETIME_S)

    @staticmethod
    def _location(state: JobState) -> Mapping[str, Any]:
        assert state.sidecar is not None  # noqa: S101  a successful job
        location: Mapping[str, Any] = state.sidecar["result"]
        return location

    def _validate(self, request: ProcessRequest | ObjectRequest) -> Options:
        """Check all that the stage Validate checks, except for the image and the preset, and return the options."""
        options = Options.parse_explicit(request.options)
        if options.model != "auto":
            check_name(options.model, self._config.registry)
        if request.webhook_url is not None:
            self._config.outbound.check(request.webhook_url, field="webhook_url")
        return options

    def _execution_input(
        self, job: JobRecord, request: ProcessRequest | ObjectRequest, caller: Caller
    ) -> dict[str, Any]:
        """Store the images of a job, and return its execution's input."""
        source = {"bucket": self._config.uploads_bucket, "key": job.source_key}
        options = dict(request.options)
        if isinstance(request, ObjectRequest):
            version_id = request.version_id
        else:
            image = self._image(request.image, "image_url")
            if request.background is not None:
                background = self._background(request.background)
                options["background_key"] = background_key(job.source_key)
                self._put(background_key(job.source_key), background)
            version_id = self._put(job.source_key, image)
        if version_id:
            source["version_id"] = version_id
        execution_input: dict[str, Any] = {"source": source, "options": options, "tenant": caller.id}
        if request.webhook_url is not None:
            execution_input["webhook"] = {"url": request.webhook_url, "key_id": caller.id}
        return execution_input

    def _start(self, job: JobRecord, execution_input: Mapping[str, Any]) -> None:
        try:
            self._stepfunctions.start_execution(
                stateMachineArn=self._config.state_machine_alias, name=job.id, input=json.dumps(execution_input)
            )
        except self._stepfunctions.exceptions.ExecutionAlreadyExists:
            if self._repository.start_count(job) > 1:  # a concurrent request with the same key started it
                return
            raise Problem(
                422,
                "idempotency_key_reused",
                "This Idempotency-Key belongs to a deleted or expired job.",
                field="Idempotency-Key",
                remedy="Use a new key for each request.",
            ) from None

    def _image(self, image: bytes | str, field: str) -> bytes:
        """Return an image's bytes, downloaded if ``image`` is a URL. Check its size and format."""
        data = image if isinstance(image, bytes) else self._fetch(image, field=field).data
        check_bytes(len(data))
        sniff(data)
        return data

    def _background(self, background: bytes | str) -> bytes:
        try:
            return self._image(background, "background_url")
        except PermanentError as error:
            raise InvalidOptionsError(
                f"The background cannot be used: {error.message}",
                field="background",
                value=error.value,
                remedy=error.remedy,
            ) from error

    def _put(self, key: str, data: bytes) -> str | None:
        return self._store.put(self._config.uploads_bucket, key, data, "application/octet-stream")

    def _outcome(self, job: JobRecord) -> JobState | None:
        """Return the state of an ended job from its sidecar or failure report; None if there is neither."""
        for key in job.sidecar_keys:
            if (sidecar := self._document(job, key)) is not None:
                return self._succeeded(job, sidecar)
        if (report := self._document(job, failure_key(job.source_key, job.id))) is not None:
            return self._failed(job, report)
        return None

    def _document(self, job: JobRecord, key: str) -> Mapping[str, Any] | None:
        document = self._read_json(key)
        return document if document and RETRY.sub("", document["execution"]["name"]) == job.id else None

    def _read_json(self, key: str) -> Mapping[str, Any] | None:
        try:
            document: Mapping[str, Any] = json.loads(self._store.fetch(self._config.results_bucket, key).data)
        except SourceNotFoundError:
            return None
        return document

    def _succeeded(self, job: JobRecord, sidecar: Mapping[str, Any]) -> JobState:
        price = credits_of_result(sidecar)
        self._repository.settle(job, price)
        return JobState(job, "succeeded", sidecar=sidecar, credits=price)

    def _failed(self, job: JobRecord, report: Mapping[str, Any]) -> JobState:
        price = 0 if is_free(report) else job.credits
        self._repository.settle(job, price)
        return JobState(job, "failed", report=report, credits=price)

    def _recorded_failure(self, job: JobRecord) -> Mapping[str, Any] | None:
        """Return the facts of a failure without a report: there is a result, or another job replaced the report."""
        history = self._stepfunctions.get_execution_history(
            executionArn=self._arn(job), reverseOrder=True, maxResults=_LAST_EVENTS
        )
        return failure_of(history["events"])

    def _describe(self, job: JobRecord) -> Mapping[str, Any] | None:
        try:
            return self._stepfunctions.describe_execution(executionArn=self._arn(job))
        except self._stepfunctions.exceptions.ExecutionDoesNotExist:
            return None

    def _arn(self, job: JobRecord) -> str:
        return execution_arn(self._config.state_machine_arn, job.id)
