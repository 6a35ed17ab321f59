"""Jobs: from what a request asks for to what became of it, whichever dialect it came in."""

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from core.errors import InvalidOptionsError, PermanentError, SourceNotFoundError
from core.image import decode
from core.limits import check_bytes
from core.options import Options
from core.segmentation.registry import check_name
from functions.api.auth import Caller
from functions.api.config import ApiConfig
from functions.api.problems import Problem
from functions.api.repository import Job, JobRepository, own_prefix
from functions.api.requests import ObjectRequest, ProcessRequest, file_name
from functions.contracts.history import Row, newest_stage, rows
from functions.contracts.object_keys import failure_key, sidecar_key
from functions.contracts.webhook import RETRY
from functions.runtime.outcomes import DELETED
from functions.runtime.safe_http import Fetched
from functions.runtime.store import Store

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient

URL_S: Final = 3600
"""How long an address of a result or of an upload leads there."""

_FIRST_LOOK_S: Final = 0.1
_LATER: Final = 1.2  # so that a result lies there for a tenth of its time before it is seen, and waiting stays cheap
_LONGEST_LOOK_S: Final = 1.0
_MOST_EVENTS: Final = 1000


class Fetch(Protocol):
    """Fetches a URL that a caller named; ``field`` is the input that it came in."""

    def __call__(self, url: str, *, field: str) -> Fetched:
        """Return what lies there; fails as :func:`functions.runtime.safe_http.get`."""


@dataclass(frozen=True)
class State:
    """What has become of a job.

    Attributes:
        job: the job.
        status: queued is what has not been started.
        stage: the state of the machine that it is in, while it runs, if that was asked for.
        sidecar: all that is known of the result, once there is one.
        report: ``error``, ``message``, ``field``, ``value`` and ``remedy`` of a failure.
    """

    job: Job
    status: Literal["queued", "running", "succeeded", "failed"]
    stage: str | None = None
    sidecar: Mapping[str, Any] | None = None
    report: Mapping[str, Any] | None = None


class Jobs:
    """The jobs of one stack.

    Args:
        config: where everything is.
        repository: knows which there are.
        store: S3.
        machine: Step Functions.
        fetch: fetches what callers name by URL.
    """

    def __init__(
        self, config: ApiConfig, *, repository: JobRepository, store: Store, machine: "SFNClient", fetch: Fetch
    ) -> None:
        self._config, self._repository, self._store = config, repository, store
        self._machine, self._fetch = machine, fetch

    def run(self, caller: Caller, order: ProcessRequest, *, idempotency_key: str | None, deadline: float) -> State:
        """Submit a picture, and wait for its result until ``deadline``, a time as ``time.time()`` tells it."""
        return self.wait(self.submit(caller, order, idempotency_key=idempotency_key), deadline)

    def submit(self, caller: Caller, order: ProcessRequest | ObjectRequest, *, idempotency_key: str | None) -> Job:
        """Start a job, once per idempotency key, and count it.

        Raises:
            Problem: the order is wrong, or the quota is spent; nothing was started and nothing is counted.
            BackgroundRemoverError: so is the picture, or the URL that leads to it.
        """
        self._check(order)
        job, is_fresh = self._repository.enter(caller, order, idempotency_key)
        if not is_fresh and self._describe(job) is not None:
            return job
        try:
            request = self._request(job, order, caller)
            self._repository.count_start(job)
        except Exception:
            if is_fresh:  # the same request, sent twice, may have got further with what failed here
                self._repository.withdraw(job, most_starts=0)
            raise
        try:
            self._start(job, request)
        except Exception:
            if is_fresh:
                self._repository.withdraw(job, most_starts=1)
            raise
        return job

    def wait(self, job: Job, deadline: float) -> State:
        """Wait until a job has ended, or the deadline is there.

        S3 is asked and not Step Functions, whose quota is some calls a second for all of an account.
        """
        pause_s = _FIRST_LOOK_S
        while (state := self._outcome(job)) is None:
            if time.time() + pause_s > deadline:
                return self.state(job)
            time.sleep(pause_s)
            pause_s = min(_LATER * pause_s, _LONGEST_LOOK_S)
        return state

    def state(self, job: Job) -> State:
        """Return what has become of a job, and which stage it is in."""
        if (state := self._outcome(job)) is not None:
            return state
        found = self._describe(job)
        if found is None:
            return State(job, "queued")
        if found["status"] == "RUNNING":
            newest_first = self._machine.get_execution_history(
                executionArn=self._arn(job), reverseOrder=True, maxResults=20, includeExecutionData=False
            )["events"]
            return State(job, "running", stage=newest_stage(newest_first))
        if found["status"] == "SUCCEEDED":
            return State(job, "succeeded", sidecar=json.loads(found["output"]))
        nothing_known = {"message": "The job ended without a result", "field": None, "value": None, "remedy": None}
        return self._failed(job, {"error": found.get("error", found["status"]), **nothing_known})

    def events(self, job: Job) -> list[Row]:
        """Return the steps of a job's execution so far, oldest first, at most a thousand."""
        try:
            found = self._machine.get_execution_history(
                executionArn=self._arn(job), maxResults=_MOST_EVENTS, includeExecutionData=False
            )
        except self._machine.exceptions.ExecutionDoesNotExist:
            return []
        return rows(found["events"])

    def delete(self, job: Job) -> None:
        """Stop a job that runs, forget it, and delete its picture and all that was made of it.

        What did not come through the API stays, as does the cached copy, which no name leads to. A stage that was at
        work when the job was stopped may still write what it made; that goes when the job would have gone.
        """
        found = self._describe(job)
        if found is not None and found["status"] == "RUNNING":
            self._machine.stop_execution(executionArn=self._arn(job), error=DELETED, cause="DELETE /jobs/{id}")
        if job.is_of_the_callers_own:
            sidecar = self._read(sidecar_key(job.source_key))
            if sidecar is not None:
                self._store.delete_all(self._config.results_bucket, sidecar["result"]["key"])
            for key in (sidecar_key(job.source_key), failure_key(job.source_key, job.id)):
                self._store.delete_all(self._config.results_bucket, key)
            for key in (job.source_key, _background_key(job)):
                self._store.delete_all(self._config.uploads_bucket, key)
        self._repository.forget(job)

    def upload_form(self, caller: Caller, name: str, content_type: str, max_bytes: int) -> dict[str, Any]:
        """Return where a browser can post a picture, and the key that it then has."""
        key = f"{own_prefix(caller.id)}{uuid.uuid4()}/{file_name(name)}"
        form = self._store.upload_form(self._config.uploads_bucket, key, content_type, max_bytes, URL_S)
        return {"key": key, **form}

    def result(self, state: State) -> bytes:
        """Read the result of a job that has one."""
        place = self._place(state)
        return self._store.fetch(place["bucket"], place["key"], version_id=place["version_id"]).data

    def result_url(self, state: State) -> str:
        """Return an address that leads to the result of a job that has one, for an hour."""
        place = self._place(state)
        return self._store.url(place["bucket"], place["key"], place["version_id"], URL_S)

    @staticmethod
    def _place(state: State) -> Mapping[str, Any]:
        assert state.sidecar is not None  # noqa: S101  a job that has succeeded
        place: Mapping[str, Any] = state.sidecar["result"]
        return place

    def _check(self, order: ProcessRequest | ObjectRequest) -> None:
        """Refuse what Validate would refuse, as far as that can be told from the words alone."""
        options = Options.parse(order.options)
        if options.model != "auto":
            check_name(options.model, self._config.registry)
        if order.webhook_url is not None:
            self._config.outbound.check(order.webhook_url, field="webhook_url")

    def _request(self, job: Job, order: ProcessRequest | ObjectRequest, caller: Caller) -> dict[str, Any]:
        """Lay down the pictures of a job, and return what its execution is started with."""
        source = {"bucket": self._config.uploads_bucket, "key": job.source_key}
        options = dict(order.options)
        if isinstance(order, ObjectRequest):
            version_id = order.version_id
        else:
            image = self._picture(order.image, "image_url")
            if order.background is not None:
                background = self._background(order.background)
                options["background_key"] = _background_key(job)
                self._put(_background_key(job), background)
            version_id = self._put(job.source_key, image)
        if version_id:
            source["version_id"] = version_id
        request: dict[str, Any] = {"source": source, "options": options}
        if order.webhook_url is not None:
            request["webhook"] = {"url": order.webhook_url, "key_id": caller.id}
        return request

    def _start(self, job: Job, request: Mapping[str, Any]) -> None:
        try:
            self._machine.start_execution(
                stateMachineArn=self._config.state_machine_arn, name=job.id, input=json.dumps(request)
            )
        except self._machine.exceptions.ExecutionAlreadyExists:
            if self._repository.starts(job) > 1:  # it is that of the same request, at the same time
                return
            raise Problem(
                422,
                "idempotency_key_reused",
                "This Idempotency-Key came with a job that is not kept any more.",
                field="Idempotency-Key",
                remedy="Send a key of its own with each request.",
            ) from None

    def _picture(self, image: bytes | str, field: str) -> bytes:
        """Return a picture's file, from wherever it comes; what is clearly none is refused here."""
        data = image if isinstance(image, bytes) else self._fetch(image, field=field).data
        check_bytes(len(data))
        decode.sniff(data)
        return data

    def _background(self, background: bytes | str) -> bytes:
        try:
            return self._picture(background, "background_url")
        except PermanentError as error:
            raise InvalidOptionsError(
                f"The background cannot be used: {error.message}",
                field="background",
                value=error.value,
                remedy=error.remedy,
            ) from error

    def _put(self, key: str, data: bytes) -> str | None:
        return self._store.put(self._config.uploads_bucket, key, data, "application/octet-stream")

    def _outcome(self, job: Job) -> State | None:
        """Return what lies in S3 of a job that has ended."""
        if (sidecar := self._document(job, sidecar_key(job.source_key))) is not None:
            return State(job, "succeeded", sidecar=sidecar)
        if (report := self._document(job, failure_key(job.source_key, job.id))) is not None:
            return self._failed(job, report)
        return None

    def _document(self, job: Job, key: str) -> Mapping[str, Any] | None:
        document = self._read(key)
        return document if document and RETRY.sub("", document["execution"]["name"]) == job.id else None

    def _read(self, key: str) -> Mapping[str, Any] | None:
        try:
            document: Mapping[str, Any] = json.loads(self._store.fetch(self._config.results_bucket, key).data)
        except SourceNotFoundError:
            return None
        return document

    def _failed(self, job: Job, report: Mapping[str, Any]) -> State:
        self._repository.refund_once(job)
        return State(job, "failed", report=report)

    def _describe(self, job: Job) -> Mapping[str, Any] | None:
        try:
            return self._machine.describe_execution(executionArn=self._arn(job))
        except self._machine.exceptions.ExecutionDoesNotExist:
            return None

    def _arn(self, job: Job) -> str:
        return f"{self._config.state_machine_arn.replace(':stateMachine:', ':execution:')}:{job.id}"


def _background_key(job: Job) -> str:
    return f"backgrounds/{job.source_key}"
