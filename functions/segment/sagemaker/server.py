"""Segmentation on SageMaker: the container's HTTP contract, served by ``functions.segment.sagemaker.handlers``.

``GET /ping``, ``POST /invocations``, and for Batch Transform ``GET /execution-parameters``. The port opens once the
model is loaded: until then SageMaker's health checks fail, as they are meant to. On SIGTERM the server takes nothing
more and finishes what it has.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Final

import uvicorn
from pydantic import Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from core.errors import BackgroundRemoverError, FileTooLargeError, UnsupportedFormatError
from core.limits import check_bytes
from functions.runtime import cgroup
from functions.runtime.config import Config
from functions.runtime.handler import logger
from functions.segment.sagemaker.handlers import (
    NotAcceptableError,
    Segmenter,
    input_fn,
    model_fn,
    output_fn,
    predict_fn,
)

_MODEL_DIR: Final = "/opt/ml/model"  # where SageMaker puts the files of a model that has any
_MOST_AT_ONCE: Final = 16  # in hand and waiting; one after the other, more would not be done within SageMaker's 60 s
_BATCH_REQUESTS: Final = 4  # enough to read and decode while the network runs
_BATCH_MB: Final = 100  # SageMaker's limit of all requests together

_STATUS: Final[dict[type[BackgroundRemoverError], int]] = {
    NotAcceptableError: 406,
    FileTooLargeError: 413,
    UnsupportedFormatError: 415,
}


class EndpointConfig(Config):
    """``sagemaker_bind_to_port`` is SageMaker's own variable."""

    sagemaker_bind_to_port: Annotated[int, Field(gt=0, lt=65536)] = 8080


class EndpointBusyError(BackgroundRemoverError):
    """The endpoint has as many requests as it can hold. The state machine never meets it."""

    retryable = True


def create_app(model: Segmenter, *, most_at_once: int = _MOST_AT_ONCE) -> Starlette:
    """Return the endpoint as an ASGI application.

    Args:
        model: does the work, in threads.
        most_at_once: how many requests it holds; what comes beyond is refused.
    """
    places = asyncio.Semaphore(most_at_once)
    threads = ThreadPoolExecutor(1 + cgroup.cpus())  # one waits for the network while the others decode

    async def ping(_request: Request) -> Response:
        return Response()

    async def execution_parameters(_request: Request) -> Response:
        return JSONResponse(
            {
                "MaxConcurrentTransforms": _BATCH_REQUESTS,
                "BatchStrategy": "SINGLE_RECORD",
                "MaxPayloadInMB": _BATCH_MB // _BATCH_REQUESTS,
            }
        )

    async def invocations(request: Request) -> Response:
        if places.locked():
            raise EndpointBusyError(
                "The endpoint has as many requests as it can hold",
                field="requests",
                value=most_at_once,
                remedy="Send it again later, or give the endpoint more instances.",
            )
        async with places:
            body = await _read(request)
            headers = request.headers.get("content-type"), request.headers.get("accept")
            loop = asyncio.get_running_loop()
            answer, media_type = await loop.run_in_executor(threads, _transform, model, body, *headers)
            return Response(answer, media_type=media_type)

    async def refuse(_request: Request, error: Exception) -> Response:
        assert isinstance(error, BackgroundRemoverError)  # noqa: S101  it is registered for these
        logger.warning("invocation failed", extra={"failure": error.facts()})
        return JSONResponse(error.facts(), _STATUS.get(type(error), 503 if error.retryable else 400))

    return Starlette(
        routes=[
            Route("/ping", ping, methods=["GET"]),
            Route("/execution-parameters", execution_parameters, methods=["GET"]),
            Route("/invocations", invocations, methods=["POST"]),
        ],
        exception_handlers={BackgroundRemoverError: refuse},
    )


async def _read(request: Request) -> bytes:
    """Return the body; one that is too large is refused before it is in memory."""
    check_bytes(int(request.headers.get("content-length", 0)))
    chunks, size_bytes = [], 0
    async for chunk in request.stream():
        chunks.append(chunk)
        size_bytes += len(chunk)
        check_bytes(size_bytes)
    return b"".join(chunks)


def _transform(model: Segmenter, body: bytes, content_type: str | None, accept: str | None) -> tuple[bytes, str]:
    return output_fn(predict_fn(input_fn(body, content_type), model), accept)


def main() -> None:
    """Load the model, and serve until SIGTERM or SIGINT."""
    port = EndpointConfig().sagemaker_bind_to_port
    app = create_app(model_fn(_MODEL_DIR))
    uvicorn.run(app, host="0.0.0.0", port=port, access_log=False)  # noqa: S104  # SageMaker pings every few seconds


if __name__ == "__main__":
    main()
