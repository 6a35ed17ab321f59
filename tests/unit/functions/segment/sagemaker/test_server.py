"""The endpoint over HTTP, as SageMaker calls a container."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette

from core.arrays import Picture
from core.errors import UnknownForegroundError
from core.limits import MAX_BYTES
from core.segmentation.registry import BUNDLED, CLASSICAL, MODELS
from core.segmentation.sessions import Networks
from functions.contracts.errors import StorageUnavailableError
from functions.runtime.weights import ModelSource
from functions.segment.sagemaker.handlers import Segmenter
from functions.segment.sagemaker.server import create_app
from tests.conftest import ROOT
from tests.unit.functions.segment.sagemaker.test_handlers import (
    JOB,
    JSON,
    PNG,
    FakeStore,
    async_request,
    segmenter,
    transform,
)

JOB_BODY = json.dumps(JOB)


def http(app: Starlette) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://endpoint")


def ask(model: Segmenter, method: str, path: str, **request: Any) -> httpx.Response:
    async def once() -> httpx.Response:
        async with http(create_app(model)) as client:
            return await client.request(method, path, **request)

    return asyncio.run(once())


def invoke(model: Segmenter, content: Any, content_type: str = JSON, **headers: str) -> httpx.Response:
    return ask(model, "POST", "/invocations", content=content, headers={"Content-Type": content_type, **headers})


def test_the_response_to_a_ping_is_200_without_a_body() -> None:
    response = ask(segmenter(), "GET", "/ping")
    assert (response.status_code, response.content) == (200, b"")


def test_batch_transform_gets_its_execution_parameters() -> None:
    told = ask(segmenter(), "GET", "/execution-parameters").json()
    assert told["BatchStrategy"] == "SINGLE_RECORD"
    assert told["MaxConcurrentTransforms"] > 1, "the next picture is decoded while the network runs"
    assert told["MaxConcurrentTransforms"] * told["MaxPayloadInMB"] <= 100, "which is SageMaker's limit"


def test_a_toolkit_gets_the_same_mask(disc_png: bytes) -> None:
    response = invoke(segmenter(), disc_png, PNG)
    assert (response.status_code, response.headers["content-type"]) == (200, PNG)
    assert (response.content, PNG) == transform(segmenter(), disc_png, PNG)


def test_the_response_to_a_job_is_json(disc_png: bytes) -> None:
    store = FakeStore(disc_png)
    response = invoke(segmenter(store), JOB_BODY, Accept=JSON)
    assert response.status_code == 200
    assert response.json()["key"] in store.masks


def test_the_response_to_an_async_request_is_empty(disc_png: bytes) -> None:
    response = invoke(segmenter(FakeStore(disc_png)), async_request())
    assert (response.status_code, response.json()) == (200, {})


class Failing(FakeStore):
    def __init__(self, error: Exception) -> None:
        super().__init__(None)
        self.error = error

    def picture(self, *_: Any, **__: Any) -> Picture:
        raise self.error


PERMANENT = UnknownForegroundError("No subject was found", field="image", value="none", remedy="Try another.")
TRANSIENT = StorageUnavailableError("S3 fails", field="source.key", value="key", remedy="Later.")


@pytest.mark.parametrize(
    ("model", "content", "content_type", "status", "error"),
    [
        (segmenter(Failing(PERMANENT)), JOB_BODY, JSON, 400, "UnknownForegroundError"),
        (segmenter(), JOB_BODY, JSON, 400, "InvalidRequestError"),
        (segmenter(), "{", JSON, 400, "InvalidRequestError"),
        (segmenter(), b"", PNG, 400, "EmptyImageError"),
        (segmenter(), "a,b", "text/csv", 415, "UnsupportedFormatError"),
        (segmenter(), b"%PDF-1.7", PNG, 415, "UnsupportedFormatError"),
        (segmenter(Failing(TRANSIENT)), JOB_BODY, JSON, 503, "StorageUnavailableError"),
    ],
)
def test_an_error_has_its_status_and_its_facts(
    model: Segmenter, content: Any, content_type: str, status: int, error: str
) -> None:
    response = invoke(model, content, content_type)
    assert response.status_code == status
    assert response.json()["error"] == error
    assert response.json().keys() == {"error", "message", "field", "value", "remedy"}


def test_a_response_type_that_is_not_accepted_is_406(disc_png: bytes) -> None:
    response = invoke(segmenter(), disc_png, PNG, Accept="image/webp")
    assert (response.status_code, response.json()["error"]) == (406, "NotAcceptableError")


def exchange(app: Any, headers: dict[str, str], body: Iterator[bytes]) -> tuple[int, dict[str, Any]]:
    """POST an endless body. HTTP clients would read it completely first."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": next(body), "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/invocations",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


def test_a_body_with_a_too_large_content_length_is_rejected_unread() -> None:
    headers = {"content-type": PNG, "content-length": str(MAX_BYTES + 1)}
    status, facts = exchange(create_app(segmenter()), headers, iter(()))
    assert (status, facts["error"], facts["value"]) == (413, "FileTooLargeError", MAX_BYTES + 1)


def test_a_too_large_body_without_a_content_length_is_rejected() -> None:
    step = MAX_BYTES // 10
    body = iter([bytes(step)] * 11)
    status, facts = exchange(create_app(segmenter()), {"content-type": PNG, "transfer-encoding": "chunked"}, body)
    assert (status, facts["error"]) == (413, "FileTooLargeError")


class Waiting(FakeStore):
    """A store that signals each read, and blocks it until the test allows it."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.asked, self.may_read = threading.Semaphore(0), threading.Event()

    def picture(self, *args: Any, **kwargs: Any) -> Picture:
        self.asked.release()
        assert self.may_read.wait(60)
        return super().picture(*args, **kwargs)


@pytest.mark.slow
def test_requests_above_the_limit_are_rejected_while_pings_succeed(disc_png: bytes) -> None:
    store = Waiting(disc_png)
    app = create_app(segmenter(store), max_requests=1)

    async def scenario() -> list[httpx.Response]:
        async with http(app) as client:
            post = {"content": JOB_BODY, "headers": {"Content-Type": JSON}}
            first = asyncio.create_task(client.post("/invocations", **post))
            assert await asyncio.to_thread(store.asked.acquire, timeout=60)
            second, ping = await client.post("/invocations", **post), await client.get("/ping")
            store.may_read.set()
            return [await first, second, ping, await client.post("/invocations", **post)]

    first, second, ping, later = asyncio.run(scenario())
    assert [response.status_code for response in (first, second, ping, later)] == [200, 503, 200, 200]
    assert second.json()["error"] == "EndpointBusyError"


class Counting(Networks):
    """A network whose first prediction ends when the second image is read."""

    def __init__(self, store: Waiting) -> None:
        super().__init__(ModelSource(()), threads=1)
        self.store, self.running, self.most_running = store, 0, 0

    def predict(self, name: str, batch: Any) -> Any:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        assert self.store.asked.acquire(timeout=60)
        self.running -= 1
        side = MODELS[name].input_px
        return np.eye(side, dtype=np.float32)[None]


def test_images_are_read_during_a_prediction_and_predictions_run_one_by_one(disc_png: bytes) -> None:
    store = Waiting(disc_png)
    store.may_read.set()
    networks = Counting(store)
    context = segmenter(store).job_context
    job = {**JOB, "options": {**JOB["options"], "model": "u2netp", "precision_level": "standard"}}
    app = create_app(Segmenter(networks, CLASSICAL, context))

    async def scenario() -> list[int]:
        async with http(app) as client:
            posts = (client.post("/invocations", json=job) for _ in range(2))
            return [response.status_code for response in await asyncio.gather(*posts)]

    assert asyncio.run(scenario()) == [200, 200]
    assert networks.most_running == 1


# ---- The process


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The server as SageMaker starts it, after its first successful ping."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "PYTHONPATH": str(ROOT),
        "PBR_MODEL_DIR": str(tmp_path),
        "DEFAULT_MODEL": BUNDLED,
        "SAGEMAKER_BIND_TO_PORT": str(port),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "functions.segment.sagemaker.server"], env=environment, cwd=ROOT
    ) as server:
        deadline = time.monotonic() + 60
        while not pings(port):
            assert server.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        try:
            yield server, port
        finally:
            server.kill()


def pings(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ping").status_code == 200
    except httpx.TransportError:  # refused, or reset when the listening socket is closed
        return False


@pytest.mark.slow
def test_a_request_in_progress_is_finished_before_the_server_ends(
    process: tuple[subprocess.Popen[bytes], int], disc_png: bytes
) -> None:
    server, port = process
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        lines = "POST /invocations HTTP/1.1", "Host: endpoint", f"Content-Type: {PNG}", "Expect: 100-continue"
        connection.sendall("\r\n".join([*lines, f"Content-Length: {len(disc_png)}", "", ""]).encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100"), "it waits for the picture"
        server.send_signal(signal.SIGTERM)
        while pings(port):
            time.sleep(0.02)
        connection.sendall(disc_png)
        response = connection.makefile("rb").read()
    assert response.startswith(b"HTTP/1.1 200 OK")
    assert b"\x89PNG" in response
    server.wait(60)
