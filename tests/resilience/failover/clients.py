"""Clients of the API that survive a failover: they retry requests as AWS SDKs do, and send lost jobs again."""

import base64
import random
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import Any, Final, Literal

import httpx

from functions.contracts.api_key import ApiKey
from tests.conftest import disc
from tests.resilience.failover.routing import Records, Resolver

Kind = Literal["process", "removebg", "upload"]
KINDS: Final[tuple[Kind, ...]] = ("process", "removebg", "upload")

ATTEMPTS: Final = 3  # as botocore's standard mode, and its statuses
RETRIED: Final = frozenset({429, 500, 502, 503, 504})
BACKOFF_S: Final = 1.0
JOB_TIMEOUT_S: Final = 90.0
PAUSE_S: Final = 0.3
POLL_S: Final = 0.1
_TIMEOUT: Final = httpx.Timeout(35, connect=3)


class RequestFailedError(Exception):
    """A request failed in all its attempts."""


class JobLostError(Exception):
    """The API does not know a job, or an upload, of another Region."""


@dataclass
class Job:
    """An image that a client wants processed, and what happened to it.

    Attributes:
        number: seed of the image.
        kind: ``process`` and ``removebg`` send the image and wait; ``upload`` uploads it, starts a job and polls it.
        client: number of the client.
        started_at: time in seconds.
        ended_at: time in seconds; None if the job did not end.
        accepted_by: Region that accepted the job last, with the job's ID, if a poll or a result is outstanding.
        keys: Idempotency-Keys that were sent; an upload to another Region needs a new one.
        lost: times at which a Region reported that it does not know the job or its upload, with its error.
        failed_requests: number of requests that failed in all their attempts.
        result: the result; None if there is none.
        error: why the job failed.
    """

    number: int
    kind: Kind
    client: int
    started_at: float
    ended_at: float | None = None
    accepted_by: str | None = None
    keys: set[str] = field(default_factory=set)
    lost: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    failed_requests: int = 0
    result: bytes | None = None
    error: str | None = None

    @property
    def image(self) -> bytes:
        """The image, which no other job has."""
        return picture(self.number)


def picture(number: int) -> bytes:
    """Return the image of a job."""
    return disc(width=160, height=120, seed=number)


class Load:
    """Clients that process one image after another until they are stopped.

    Args:
        records: the records of the API's name.
        near: for each client, the Region near it.
        key: API key.
        ttl_s: how long clients cache the Region's address.

    Attributes:
        jobs: all jobs, in the order of their start.
        responses: time, client and Region of each response of the API.
        attempts_failed: number of failed attempts, by error.
    """

    def __init__(self, records: Records, near: list[str], key: ApiKey, ttl_s: float) -> None:
        self.jobs: list[Job] = []
        self.responses: list[tuple[float, int, str]] = []
        self.attempts_failed: Counter[str] = Counter()
        self._stop, self._numbers = threading.Event(), count(1)
        self._records, self._key, self._ttl_s = records, key, ttl_s
        self._threads = [
            threading.Thread(target=self._run, args=(region, number), daemon=True) for number, region in enumerate(near)
        ]

    def start(self) -> None:
        """Start the clients."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let the clients finish their jobs, and wait for them."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def in_flight(self, region: str) -> list[Job]:
        """Return the jobs that a Region has accepted and whose results have not arrived."""
        return [job for job in self.jobs if job.ended_at is None and job.accepted_by == region]

    def _run(self, near: str, number: int) -> None:
        transport = Resolver(self._records, near, self._ttl_s)
        headers = {"X-API-Key": self._key.reveal()}
        with httpx.Client(transport=transport, base_url=Resolver.API, headers=headers, timeout=_TIMEOUT) as http:
            for kind in cycle(KINDS[number % len(KINDS) :] + KINDS[: number % len(KINDS)]):
                if self._stop.is_set():
                    return
                job = Job(next(self._numbers), kind, number, time.monotonic())
                self.jobs.append(job)
                _Client(http, self, job).finish()
                time.sleep(PAUSE_S)


class _Client:
    """Processes one job."""

    def __init__(self, http: httpx.Client, load: Load, job: Job) -> None:
        self._http, self._load, self._job = http, load, job
        self._key = str(uuid.uuid4())
        self._source_key: str | None = None
        self._deadline = job.started_at + JOB_TIMEOUT_S

    def finish(self) -> None:
        """Do as the remedies of errors say until there is a result."""
        job = self._job
        run = {"process": self._process, "removebg": self._removebg, "upload": self._upload}[job.kind]
        while job.result is None and job.error is None:
            try:
                job.result = run()
                job.ended_at = time.monotonic()
            except JobLostError:
                job.accepted_by = None
            except RequestFailedError:
                job.failed_requests += 1
            except (AssertionError, KeyError, ValueError) as error:
                job.error = repr(error)
            if job.result is None and time.monotonic() > self._deadline:
                job.error = f"No result in {JOB_TIMEOUT_S:.0f} s."

    def _process(self) -> bytes:
        response = self._send("POST", "/process", files={"image": ("disc.png", self._job.image)})
        assert response.status_code in (200, 202), response.text
        if response.status_code == 202:
            return self._poll(response)
        return base64.b64decode(response.json()["image"])

    def _removebg(self) -> bytes:
        response = self._send("POST", "/v1.0/removebg", files={"image_file": self._job.image}, data={"size": "auto"})
        assert response.status_code == 200, response.text
        return response.content

    def _upload(self) -> bytes:
        if self._source_key is None:
            form = self._send("POST", "/uploads", json={"name": "disc.png", "content_type": "image/png"})
            assert form.status_code == 201, form.text
            where = form.json()
            stored = self._send("POST", where["url"], data=where["fields"], files={"file": self._job.image})
            assert stored.is_success, stored.text
            self._source_key = where["key"]
            self._key = str(uuid.uuid4())  # an Idempotency-Key belongs to one request, and this one has a new key
        response = self._send("POST", "/jobs", json={"source": {"key": self._source_key}})
        assert response.status_code == 202, response.text
        return self._poll(response)

    def _poll(self, accepted: httpx.Response) -> bytes:
        """Follow a job to its result."""
        self._accept(accepted)
        while time.monotonic() < self._deadline:
            try:
                response = self._send("GET", accepted.headers["Location"])
                document = response.json()
                if response.status_code == 404:
                    raise self._lost(document)
                if document["status"] == "failed":
                    error = document["error"]
                    if error["code"] == "source_not_found":  # uploaded to another Region
                        self._source_key = None
                        raise self._lost(error)
                    raise ValueError(error)
                if document["status"] == "succeeded":
                    result = self._send("GET", document["result"]["url"])
                    assert result.status_code == 200, result.text
                    return result.content
            except RequestFailedError:  # the job may have survived
                self._job.failed_requests += 1
            time.sleep(POLL_S)
        raise ValueError("the job did not end")

    def _accept(self, response: httpx.Response) -> None:
        self._job.accepted_by = response.extensions["region"]

    def _lost(self, problem: dict[str, Any]) -> JobLostError:
        self._job.lost.append((time.monotonic(), problem))
        return JobLostError(problem["code"])

    def _send(self, method: str, url: str, **body: Any) -> httpx.Response:
        """Send a request; retry it if the connection fails or the status is temporary, as AWS SDKs do."""
        headers = {}
        if method == "POST" and url in ("/process", "/v1.0/removebg", "/jobs"):
            headers = {"Idempotency-Key": self._key}
            self._job.keys.update(headers.values())
        for attempt in range(1, ATTEMPTS + 1):
            try:
                response = self._http.request(method, url, headers=headers, **body)
            except httpx.TransportError as error:
                failure, wait_s = type(error).__name__, 0.0
            else:
                if region := response.extensions.get("region"):
                    self._load.responses.append((time.monotonic(), self._job.client, region))
                if response.status_code not in RETRIED:
                    return response
                failure, wait_s = str(response.status_code), float(response.headers.get("Retry-After", 0))
            self._load.attempts_failed[failure] += 1
            if attempt < ATTEMPTS:
                time.sleep(wait_s or random.uniform(0, BACKOFF_S * 2 ** (attempt - 1)))
        raise RequestFailedError(failure)
