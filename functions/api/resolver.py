"""Combine all routes, and turn exceptions into error responses."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from http import HTTPStatus
from typing import Any

import boto3
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, CORSConfig, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.middlewares import NextMiddleware
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnectionError

from core.errors import BackgroundRemoverError
from functions.api import openapi
from functions.api.config import ApiConfig
from functions.api.problems import Problem, error_response, problem_from_error, problem_from_validation, unavailable
from functions.api.routes import native, rembg, removebg
from functions.api.services import Services
from functions.runtime.aws_errors import is_overload
from functions.runtime.edge import HEADER, Edge
from functions.runtime.handler import count, logger, traced

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
_ERROR_RESPONSES = {removebg.PATH: removebg.error_response, rembg.PATH: rembg.error_response}
"""The error format of compatible routes, by path prefix."""

_ON_EVERY_RESPONSE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

Handler = Callable[[dict[str, Any], LambdaContext], dict[str, Any]]
Middleware = Callable[[APIGatewayHttpResolver, NextMiddleware], Response[Any]]


def create_resolver(services: Services) -> APIGatewayHttpResolver:
    """Return the resolver with all routes and the exception handler."""
    app = APIGatewayHttpResolver(
        cors=_cors(services.config.cors_origins), strip_prefixes=[native.IAM], enable_validation=True
    )
    if services.edge:
        app.use(middlewares=[_origin_check(services.edge)])
    for module in (native, removebg, rembg):
        app.include_router(module.routes(services))

    _add_documentation(app)

    @app.exception_handler(Exception)  # type: ignore[untyped-decorator]
    def handle_exception(error: Exception) -> Response[str]:
        problem = to_problem(error)
        if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            facts = {"code": problem.code, "failure": problem.failure}
            # Routes raise a problem on purpose, so that its traceback has only the frames of the router.
            logger.error("request failed", exc_info=not isinstance(error, Problem), extra=facts)
            count("ApiError", Code=problem.code)
        else:
            logger.info("request rejected", extra={"code": problem.code, "field": problem.field})
        if rate_limit := app.context.get("rate_limit"):
            problem = replace(problem, headers={**rate_limit.headers, **problem.headers})
        path = app.current_event.raw_path.removeprefix(native.IAM)
        respond = next(
            (respond for prefix, respond in _ERROR_RESPONSES.items() if path.startswith(prefix)), error_response
        )
        return respond(problem, app.current_event.request_context.request_id)

    return app


def create_handler(services: Services) -> Handler:
    """Return the Lambda handler of the API."""
    app = create_resolver(services)

    @logger.inject_lambda_context(clear_state=True)
    @traced
    def handle(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        response = app.resolve(event, context)
        response["headers"] = {**(response.get("headers") or {}), **_ON_EVERY_RESPONSE}
        return response

    return handle


def _origin_check(edge: Edge) -> Middleware:
    """Return a middleware that rejects requests that did not come through the edge, where the firewall is.

    Two kinds are sent to the address of the Region: health checks of Route 53, and requests that API Gateway has
    authenticated, because an IAM signature includes the host name.
    """

    def check_origin(app: APIGatewayHttpResolver, proceed: NextMiddleware) -> Response[Any]:
        event = app.current_event
        is_direct = event.raw_path == native.HEALTH or event.request_context.authorizer.iam.user_arn
        if not (is_direct or edge.sent(event.headers.get(HEADER, ""))):
            raise Problem(
                403,
                "not_through_edge",
                "The request did not come through the address of the API.",
                remedy="Call the API at the address in the stack's output ApiUrl.",
            )
        return proceed(app)

    return check_origin


def _add_documentation(app: APIGatewayHttpResolver) -> None:
    """Add the routes of the OpenAPI document and of a page that shows it. The page loads nothing from other hosts."""

    @cache
    def document() -> str:
        return json.dumps(openapi.document(app, _operations()))

    @app.get("/openapi.json", include_in_schema=False, compress=True)
    def show_document() -> Response[str]:
        return Response(HTTPStatus.OK.value, openapi.JSON, document())

    @app.get("/docs", include_in_schema=False, compress=True)
    def show_page() -> Response[str]:
        return Response(HTTPStatus.OK.value, "text/html; charset=utf-8", openapi.page(document()))


def _operations() -> dict[str, openapi.Operation]:
    return {**native.operations(), **removebg.operations(), **rembg.operations()}


def openapi_document() -> dict[str, Any]:
    """Return the API's OpenAPI document. It is the same for every stack."""
    config = ApiConfig(
        uploads_bucket="",
        results_bucket="",
        work_bucket="",
        cache_table="",
        state_machine_alias="",
        segmentation_queue_url="",
        keys_table="",
        usage_table="",
        jobs_table="",
        job_days=1,
        rate_per_minute=1,
        monthly_quota=1,
        jobs_in_flight=1,
    )
    client = partial(boto3.client, region_name="us-east-1")  # never called
    app = create_resolver(Services.connect(config, client=client))
    return openapi.document(app, _operations())


def to_problem(error: Exception) -> Problem:
    """Return the problem that reports an exception of a route."""
    match error:
        case Problem():
            return error
        case BackgroundRemoverError():
            return problem_from_error(error)
        case NotFoundError():
            return Problem(
                404,
                "not_found",
                "The route does not exist.",
                remedy="GET /openapi.json lists all routes and methods, GET /docs shows them.",
            )
        case RequestValidationError():
            first = error.errors()[0]
            return problem_from_validation(first, first["loc"][1:])
        case ClientError() if is_overload(error.response):
            return unavailable()
        case NoConnectionError() | HTTPClientError():
            return unavailable()
    return Problem(500, "internal_error")


def _cors(origins: tuple[str, ...]) -> CORSConfig | None:
    if not origins:
        return None
    return CORSConfig(origins[0], list(origins[1:]), allow_headers=_HEADERS, expose_headers=_EXPOSED, max_age=_CORS_S)
