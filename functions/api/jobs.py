"""Jobs: from what a request asks for to what became of it, whichever dialect it came in."""

import hashlib
import json
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol
from urllib.parse import unquote, urlsplit

from botocore.exceptions import ClientError

from core import decode
from core.errors import InvalidOptionsError, PermanentError, SourceNotFoundError
from core.keys import failure_key, sidecar_key
from core.limits import check_bytes
from core.models import check_name
from core.options import Options
from core.outbound import Fetched
from functions.api.auth import Caller, Gate
from functions.api.config import ApiConfig
from functions.api.problems import RETRY_AFTER_S, Problem
from functions.shared.history import Row, newest_stage, rows
from functions.shared.notice import RETRY
from functions.shared.outcome import DELETED
from functions.shared.store import Store

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_stepfunctions import SFNClient

URL_S: Final = 3600
"""How long an address of a result or of an upload leads there."""

_PREFIX: Final = "api"
_FIRST_LOOK_S: Final = 0.2
_LONGEST_LOOK_S: Final = 1.0
_MAX_NAME_CHARS: Final = 100
_MAX_ID_CHARS: Final = 36  # DynamoDB refuses long keys
_MAX_IDEMPOTENCY_KEY_CHARS: Final = 255
_SECONDS_PER_DAY: Final = 86_400
_MOST_EVENTS: Final = 1000


class Fetch(Protocol):
    """Fetches a URL that a caller named; ``field`` is the input that it came in."""

    def __call__(self, url: str, *, field: str) -> Fetched:
        """Return what lies there; fails as :func:`core.outbound.get`."""


@dataclass(frozen=True)
class Order:
    """What a request asks for.

    Attributes:
        image: the picture's file, or the URL of one.
        options: those of :class:`core.options.Options` that are not to have their defaults.
        name: the file's name, which the result is named after; None: that of the URL, if it is one.
        background: a picture to put the subject on, or the URL of one.
        webhook_url: who is told when the job has ended.
    """

    image: bytes | str
    options: Mapping[str, Any]
    name: str | None = None
    background: bytes | str | None = None
    webhook_url: str | None = None


@dataclass(frozen=True)
class ObjectOrder:
    """A job for an object that lies in the uploads bucket already."""

    key: str
    version_id: str | None
    options: Mapping[str, Any]
    webhook_url: str | None = None


@dataclass(frozen=True)
class Job:
    """A job as the table knows it; ``source_key`` is that of its picture in the uploads bucket."""

    id: str
    owner: str
    source_key: str
    created_at: str

    @property
    def is_of_the_callers_own(self) -> bool:
        """Whether the caller put the picture there through the API."""
        return self.source_key.startswith(f"{_PREFIX}/{self.owner}/")


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
        gate: keeps the accounts.
        store: S3.
        table: DynamoDB.
        machine: Step Functions.
        fetch: fetches what callers name by URL.
    """

    def __init__(
        self,
        config: ApiConfig,
        *,
        gate: Gate,
        store: Store,
        table: "DynamoDBClient",
        machine: "SFNClient",
        fetch: Fetch,
    ) -> None:
        self._config, self._gate, self._store = config, gate, store
        self._table, self._machine, self._fetch = table, machine, fetch

    def run(self, caller: Caller, order: Order, *, idempotency_key: str | None, deadline: float) -> State:
        """Submit a picture, and wait for its result until ``deadline``, a time as ``time.time()`` tells it."""
        return self.wait(self.submit(caller, order, idempotency_key=idempotency_key), deadline)

    def submit(self, caller: Caller, order: Order | ObjectOrder, *, idempotency_key: str | None) -> Job:
        """Start a job, once per idempotency key, and count it.

        Raises:
            Problem: the order is wrong, or the quota is spent; nothing was started and nothing is counted.
            BackgroundRemoverError: so is the picture, or the URL that leads to it.
        """
        self._check(order)
        job, is_fresh = self._claim(caller, order, _job_id(caller, idempotency_key))
        if not is_fresh and self._describe(job) is not None:
            return job
        try:
            request = self._request(job, order, caller)
            self._count_start(job)
        except Exception:
            if is_fresh:  # the same request, sent twice, may have got further with what failed here
                self._withdraw(job, most_starts=0)
            raise
        try:
            self._start(job, request)
        except Exception:
            if is_fresh:
                self._withdraw(job, most_starts=1)
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
            pause_s = min(1.3 * pause_s, _LONGEST_LOOK_S)
        return state

    def find(self, caller: Caller, job_id: str) -> Job:
        """Return a caller's own job.

        Raises:
            Problem: ``job_not_found``.
        """
        item = self._item(job_id) if len(job_id) <= _MAX_ID_CHARS else None
        if item is None or item["owner"]["S"] != caller.id:
            raise Problem(
                404,
                "job_not_found",
                "There is no such job of yours.",
                field="job_id",
                value=job_id,
                remedy=f"Jobs are kept for {self._config.job_days} days. Ask with the key that made the job.",
            )
        return _job_of(item)

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
        if self._describe(job) is None:
            return []
        return rows(
            self._machine.get_execution_history(
                executionArn=self._arn(job), maxResults=_MOST_EVENTS, includeExecutionData=False
            )["events"]
        )

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
        self._forget(job)

    def upload_form(self, caller: Caller, name: str | None, content_type: str, max_bytes: int) -> dict[str, Any]:
        """Return where a browser can post a picture, and the key that it then has."""
        key = f"{_PREFIX}/{caller.id}/{uuid.uuid4()}/{file_name(name)}"
        form = self._store.upload_form(self._config.uploads_bucket, key, content_type, max_bytes, URL_S)
        return {"key": key, **form}

    def refund_once(self, job: Job) -> None:
        """Give back what a job was counted that made nothing for its caller, the first time that this is seen."""
        try:
            self._table.update_item(
                TableName=self._config.jobs_table,
                Key={"job_id": {"S": job.id}},
                UpdateExpression="SET refunded = :yes",
                ConditionExpression="attribute_exists(job_id) AND attribute_not_exists(refunded)",
                ExpressionAttributeValues={":yes": {"BOOL": True}},
            )
        except self._table.exceptions.ConditionalCheckFailedException:
            return
        self._gate.refund(job.owner)

    def result(self, state: State) -> bytes:
        """Read the result of a job that has one."""
        place = self._place(state)
        return self._store.fetch(place["bucket"], place["key"]).data

    def result_url(self, state: State) -> str:
        """Return an address that leads to the result of a job that has one, for an hour."""
        place = self._place(state)
        return self._store.url(place["bucket"], place["key"], URL_S)

    @staticmethod
    def _place(state: State) -> Mapping[str, str]:
        assert state.sidecar is not None  # noqa: S101  a job that has succeeded
        place: Mapping[str, str] = state.sidecar["result"]
        return place

    def _check(self, order: Order | ObjectOrder) -> None:
        """Refuse what Validate would refuse, as far as that can be told from the words alone."""
        options = Options.parse(order.options)
        if options.model != "auto":
            check_name(options.model, self._config.registry)
        if order.webhook_url is not None:
            self._config.outbound.check(order.webhook_url, field="webhook_url")

    def _claim(self, caller: Caller, order: Order | ObjectOrder, job_id: str) -> tuple[Job, bool]:
        """Count a job and enter it in the table, and return it and whether it was not there.

        It is counted first: whoever finds it in the table may start it.
        """
        if isinstance(order, ObjectOrder):
            source_key = order.key
        else:
            name = order.name or (_name_in(order.image) if isinstance(order.image, str) else None)
            source_key = f"{_PREFIX}/{caller.id}/{job_id}/{file_name(name)}"
        now = time.time()
        item = {
            "job_id": {"S": job_id},
            "owner": {"S": caller.id},
            "source_key": {"S": source_key},
            "fingerprint": {"S": _fingerprint(order)},
            "created_at": {"S": _iso(now)},
            "expires_at": {"N": str(int(now) + self._config.job_days * _SECONDS_PER_DAY)},
        }
        there = self._item(job_id)
        if there is None:
            self._gate.charge(caller)
            try:
                self._table.put_item(
                    TableName=self._config.jobs_table, Item=item, ConditionExpression="attribute_not_exists(job_id)"
                )
                return _job_of(item), True
            except ClientError as error:
                self._gate.refund(caller.id)
                if not isinstance(error, self._table.exceptions.ConditionalCheckFailedException):
                    raise
            there = self._item(job_id)
        if there is None:
            raise _come_again()
        if there["fingerprint"] != item["fingerprint"]:
            raise Problem(
                422,
                "idempotency_key_reused",
                "This Idempotency-Key came with another request before.",
                field="Idempotency-Key",
                remedy="Send a key of its own with each request, and the same key only with the same request.",
            )
        return _job_of(there), False

    def _item(self, job_id: str) -> Mapping[str, Any] | None:
        return self._table.get_item(
            TableName=self._config.jobs_table, Key={"job_id": {"S": job_id}}, ConsistentRead=True
        ).get("Item")

    def _request(self, job: Job, order: Order | ObjectOrder, caller: Caller) -> dict[str, Any]:
        """Lay down the pictures of a job, and return what its execution is started with."""
        source = {"bucket": self._config.uploads_bucket, "key": job.source_key}
        options = dict(order.options)
        if isinstance(order, ObjectOrder):
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

    def _count_start(self, job: Job) -> None:
        """Note that a job is about to be started: from here on it is not given back because another start fails."""
        try:
            self._table.update_item(
                TableName=self._config.jobs_table,
                Key={"job_id": {"S": job.id}},
                UpdateExpression="ADD starts :one",
                ConditionExpression="attribute_exists(job_id)",
                ExpressionAttributeValues={":one": {"N": "1"}},
            )
        except self._table.exceptions.ConditionalCheckFailedException:
            raise _come_again() from None

    def _start(self, job: Job, request: Mapping[str, Any]) -> None:
        try:
            self._machine.start_execution(
                stateMachineArn=self._config.state_machine_arn, name=job.id, input=json.dumps(request)
            )
        except self._machine.exceptions.ExecutionAlreadyExists:
            there = self._item(job.id)
            if there is not None and int(there["starts"]["N"]) > 1:  # that of the same request, at the same time
                return
            raise Problem(
                422,
                "idempotency_key_reused",
                "This Idempotency-Key came with a job that is not kept any more.",
                field="Idempotency-Key",
                remedy="Send a key of its own with each request.",
            ) from None

    def _withdraw(self, job: Job, most_starts: int) -> None:
        """Forget a job that was not started and give back what it was counted, unless it was tried more often."""
        try:
            self._table.delete_item(
                TableName=self._config.jobs_table,
                Key={"job_id": {"S": job.id}},
                ConditionExpression="attribute_exists(job_id) AND (attribute_not_exists(starts) OR starts <= :most)",
                ExpressionAttributeValues={":most": {"N": str(most_starts)}},
            )
        except self._table.exceptions.ConditionalCheckFailedException:
            return
        self._gate.refund(job.owner)

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
        self.refund_once(job)
        return State(job, "failed", report=report)

    def _describe(self, job: Job) -> Mapping[str, Any] | None:
        try:
            return self._machine.describe_execution(executionArn=self._arn(job))
        except self._machine.exceptions.ExecutionDoesNotExist:
            return None

    def _arn(self, job: Job) -> str:
        return f"{self._config.state_machine_arn.replace(':stateMachine:', ':execution:')}:{job.id}"

    def _forget(self, job: Job) -> None:
        self._table.delete_item(TableName=self._config.jobs_table, Key={"job_id": {"S": job.id}})


def file_name(name: str | None) -> str:
    """Return a file's name as a key can end: ASCII, no folders, not too long."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", (name or "").replace("\\", "/").rpartition("/")[2]).strip("._")
    return safe[-_MAX_NAME_CHARS:] or "image"


def _come_again() -> Problem:
    """Return the answer to a request that another one like it got in the way of."""
    return Problem(503, "unavailable", headers={"Retry-After": str(RETRY_AFTER_S)})


def _background_key(job: Job) -> str:
    return f"backgrounds/{job.source_key}"


def _name_in(url: str) -> str:
    return unquote(urlsplit(url).path).rpartition("/")[2]


def _job_id(caller: Caller, idempotency_key: str | None) -> str:
    if idempotency_key is None:
        return str(uuid.uuid4())
    if not 0 < len(idempotency_key) <= _MAX_IDEMPOTENCY_KEY_CHARS:
        raise Problem(
            400,
            "invalid_request",
            f"The key has {len(idempotency_key)} characters.",
            field="Idempotency-Key",
            remedy=f"Send 1 to {_MAX_IDEMPOTENCY_KEY_CHARS} characters, such as a UUID.",
        )
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{caller.id}/{idempotency_key}"))


def _fingerprint(order: Order | ObjectOrder) -> str:
    """Return what two orders share exactly if they ask for the same."""
    said = {
        name: hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else value
        for name, value in vars(order).items()
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=dict).encode()).hexdigest()


def _job_of(item: Mapping[str, Any]) -> Job:
    return Job(
        id=item["job_id"]["S"],
        owner=item["owner"]["S"],
        source_key=item["source_key"]["S"],
        created_at=item["created_at"]["S"],
    )


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
