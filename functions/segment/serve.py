"""Segmentation on SageMaker: the container's contract, ``GET /ping`` and ``POST /invocations`` on port 8080.

The body is the job, the answer is the mask's facts; pixels go through S3 as with the other hosts, so that no picture
meets the endpoint's 6 MB limit.
"""

import json
from typing import Annotated

import uvicorn
from pydantic import Field
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from core.errors import BackgroundRemoverError
from functions.segment.work import segment_job
from functions.shared.config import SegmentationConfig
from functions.shared.job import Job
from functions.shared.observe import logger, parse
from functions.shared.store import Store


class EndpointConfig(SegmentationConfig):
    """``sagemaker_bind_to_port`` is SageMaker's own variable."""

    sagemaker_bind_to_port: Annotated[int, Field(gt=0, lt=65536)] = 8080


def create_app(config: SegmentationConfig, store: Store) -> Starlette:
    """Return the endpoint as an ASGI application."""
    networks = config.networks()

    async def ping(_request: Request) -> Response:
        return Response()

    async def invocations(request: Request) -> Response:
        try:
            job = parse(Job, json.loads(await request.body()))
            return JSONResponse(
                await run_in_threadpool(segment_job, job, store, config.work_bucket, networks, host="sagemaker")
            )
        except BackgroundRemoverError as error:
            logger.warning("invocation failed", extra={"failure": error.facts()})
            return JSONResponse(error.facts(), status_code=503 if error.retryable else 400)

    return Starlette(
        routes=[Route("/ping", ping, methods=["GET"]), Route("/invocations", invocations, methods=["POST"])]
    )


if __name__ == "__main__":
    settings = EndpointConfig()
    uvicorn.run(create_app(settings, Store()), host="0.0.0.0", port=settings.sagemaker_bind_to_port)  # noqa: S104
