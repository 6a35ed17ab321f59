"""All routes together, and what is answered when one of them fails."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import boto3
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, CORSConfig, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnectionError

from core.errors import BackgroundRemoverError
from functions.api import openapi
from functions.api.config import ApiConfig
from functions.api.problems import Problem, come_again, of_validation, problem_of, refusal
from functions.api.routes import native, rembg, removebg
from functions.api.services import Services
from functions.runtime.aws_errors import is_overload
from functions.runtime.handler import count, logger, tracer

_CORS_S = 3600
_HEADERS = ["Authorization", "Content-Type", "Idempotency-Key", "X-API-Key"]
_EXPOSED = [
    "Location",
    "Retry-After",
    "X-Request-Id",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "X-Warnings",
    *removebg.HEADERS,
]
_REFUSALS = {removebg.PATH: removebg.refusal, rembg.PATH: rembg.refusal}
"""What words a failure for the callers of others' dialects, by the beginning of their paths."""

Handler = Callable[[dict[str, Any], LambdaContext], dict[str, Any]]


def resolver(services: Services) -> APIGatewayHttpResolver:
    """Return the API's routes with what answers their failures."""
    app = APIGatewayHttpResolver(
        cors=_cors(services.config.cors_origins), strip_prefixes=[native.IAM], enable_validation=True
    )
    for dialect in (native, removebg, rembg):
        app.include_router(dialect.routes(services))

    def answer(problem: Problem) -> Response[str]:
        if rate := app.context.get("rate"):
            problem = replace(problem, headers={**rate.headers, **problem.headers})
        request_id = app.current_event.request_context.request_id
        path = app.current_event.raw_path.removeprefix(native.IAM)
        refuse = next((words for beginning, words in _REFUSALS.items() if path.startswith(beginning)), refusal)
        return refuse(problem, request_id)

    @app.exception_handler(Exception)  # type: ignore[untyped-decorator]
    def explain(error: Exception) -> Response[str]:
        problem = problem_for(error)
        if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.exception("request failed")
            count("ApiError", {"Code": problem.code})
        else:
            logger.info("request refused", extra={"code": problem.code, "field": problem.field})
        return answer(problem)

    return app


def handler(services: Services) -> Handler:
    """Return the Lambda handler of the API."""
    app = resolver(services)

    @logger.inject_lambda_context(clear_state=True)
    @tracer.capture_lambda_handler(capture_response=False)
    def handle(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        return app.resolve(event, context)

    return cast(Handler, handle)


def document() -> dict[str, Any]:
    """Return the API's OpenAPI document. It is the same for every stack."""
    nowhere = ApiConfig(
        uploads_bucket="",
        results_bucket="",
        state_machine_arn="",
        segmentation_queue_url="",
        keys_table="",
        usage_table="",
        jobs_table="",
        job_days=1,
        rate_per_minute=1,
        monthly_quota=1,
    )
    anywhere = partial(boto3.client, region_name="us-east-1")  # no call is made
    app = resolver(Services.connect(nowhere, client=anywhere))
    return openapi.document(app, {**native.told(), **removebg.told(), **rembg.told()})


def problem_for(error: Exception) -> Problem:
    """Return what is answered to whatever a route raises."""
    match error:
        case Problem():
            return error
        case BackgroundRemoverError():
            return problem_of(error)
        case NotFoundError():
            return Problem(
                404,
                "not_found",
                "There is no such route.",
                remedy="docs/reference/openapi.json has all routes and their methods.",
            )
        case RequestValidationError():
            first = error.errors()[0]
            return of_validation(first, first["loc"][1:])
        case ClientError() if is_overload(error.response):
            return come_again()
        case NoConnectionError() | HTTPClientError():
            return come_again()
    return Problem(500, "internal_error")


def _cors(origins: tuple[str, ...]) -> CORSConfig | None:
    if not origins:
        return None
    return CORSConfig(origins[0], list(origins[1:]), allow_headers=_HEADERS, expose_headers=_EXPOSED, max_age=_CORS_S)
