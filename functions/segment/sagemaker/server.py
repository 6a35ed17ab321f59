"""Segmentation on SageMaker: the container's HTTP server, on top of ``functions.segment.sagemaker.handlers``.

``GET /ping``, ``POST /invocations``, and for Batch Transform ``GET /execution-parameters``. The port opens after the
model is loaded, so that SageMaker's health checks fail until then. On SIGTERM the server accepts no new requests and
finishes the current ones.
"""

import asyncio
import logging
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

_MODEL_DIR: Final = "/opt/ml/model"  # where SageMaker puts the files of a model
_MAX_REQUESTS: Final = 16  # processed one by one, more would exceed SageMaker's limit of 60 s
_BATCH_REQUESTS: Final = 4  # enough to read and decode during a prediction
_BATCH_MB: Final = 100  # SageMaker's limit of all concurrent requests together

_STATUS: Final[dict[type[BackgroundRemoverError], int]] = {
    NotAcceptableError: 406,
    FileTooLargeError: 413,
    UnsupportedFormatError: 415,
}


class EndpointConfig(Config):
    """Configuration of the server. SageMaker sets ``sagemaker_bind_to_port``."""

    sagemaker_bind_to_port: Annotated[int, Field(gt=0, lt=65536)] = 8080


class EndpointBusyError(BackgroundRemoverError):
    """The endpoint has reached its number of concurrent requests. Not used by the state machine."""

    retryable = True


def create_app(model: Segmenter, *, max_requests: int = _MAX_REQUESTS) -> Starlette:
    """Return the endpoint as an ASGI application.

    Args:
        model: processes the requests, in threads.
        max_requests: number of concurrent requests; further ones are rejected with status 503.
    """
    slots = asyncio.Semaphore(max_requests)
    threads = ThreadPoolExecutor(1 + cgroup.cpus())  # one predicts while the others decode

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
        if slots.locked():
            raise EndpointBusyError(
                "The endpoint has reached its number of concurrent requests",
                field="requests",
                value=max_requests,
                remedy="Try again later, or add instances to the endpoint.",
            )
        async with slots:
            body = await _read(request)
            headers = request.headers.get("content-type"), request.headers.get("accept")
            loop = asyncio.get_running_loop()
            content, media_type = await loop.run_in_executor(threads, _transform, model, body, *headers)
            return Response(content, media_type=media_type)

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
    """Return the body. A body that is too large is rejected before it is in memory."""
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
    """Load the model, and serve requests until SIGTERM or SIGINT."""
    port = EndpointConfig().sagemaker_bind_to_port
    app = create_app(model_fn(_MODEL_DIR))
    logging.getLogger("uvicorn").addHandler(logger.registered_handler)  # its lines are JSON, too
    uvicorn.run(app, host="0.0.0.0", port=port, access_log=False, log_config=None)  # noqa: S104  # pings are frequent


if __name__ == "__main__":
    main()
