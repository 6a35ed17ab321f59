"""The API's own routes."""

import base64
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, Any, Final

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Header, Path
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2
from pydantic import BaseModel

from core.errors import BackgroundRemoverError
from functions.api import body, openapi
from functions.api.auth import Authorization, Caller
from functions.api.jobs import JobState
from functions.api.problems import Problem, problem_from_error, problem_from_report
from functions.api.processing import MAX_INLINE_BYTES, authorize, run
from functions.api.repository import is_own_key
from functions.api.requests import ObjectRequest, ProcessRequest
from functions.api.schemas import (
    Accepted,
    Health,
    JobDocument,
    JobRequest,
    Metrics,
    ProblemDocument,
    ProcessBody,
    ProcessResponse,
    Ready,
    Result,
    Step,
    Steps,
    UploadForm,
    UploadRequest,
)
from functions.api.services import Services
from functions.contracts.api_key import Scope

IAM: Final = "/iam"
"""Path prefix of routes for requests signed with AWS credentials."""

HEALTH: Final = "/health"
"""Route that needs no key and checks nothing, for health checks."""

_POLL_AFTER_S: Final = 2

IdempotencyKey = Annotated[
    str | None,
    Header(alias="Idempotency-Key", description="a repeated request with the same key does not start a second job"),
]
JobId = Annotated[str, Path(description="the job_id from POST /process or POST /jobs")]


def operations() -> dict[str, openapi.Operation]:
    """Return the members of OpenAPI operations that Powertools cannot derive from the routes."""
    return {
        "POST /uploads": openapi.json_body(UploadRequest),
        "POST /jobs": openapi.json_body(JobRequest),
        "POST /process": openapi.request_body(ProcessBody, openapi.JSON, openapi.FORM, files=("image", "background")),
    }


def routes(services: Services) -> APIGatewayHttpRouter:
    """Return a router with the API's own routes."""
    router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]
    _add_process_routes(router, services)
    _add_job_routes(router, services)
    _add_status_routes(router, services)
    return router


def _add_process_routes(router: APIGatewayHttpRouter, services: Services) -> None:
    @router.post(
        "/process",
        **openapi.describe("Process an image and wait for the result", {200: ProcessResponse, 202: Accepted}),
    )
    def process(idempotency_key: IdempotencyKey = None) -> Response[Any]:
        """Remove the background of an image.

        If the job takes longer than the API's timeout, the response is 202 with the job's location.
        """
        auth = authorize(services, router, Scope.PROCESS)
        request, wants_url = parse_process_body(body.read(router.current_event))
        _check_background(auth.caller, request, "background_key")
        try:
            state = run(services, router.current_event, auth.caller, request, idempotency_key)
        except BackgroundRemoverError as error:
            raise _with_top_level_field(problem_from_error(error)) from error
        if state.status in ("queued", "running"):
            return _accepted(auth, state, router.current_event)
        if state.report is not None:
            raise _with_top_level_field(problem_from_report(state.report, job_id=state.job.id))
        return _respond(HTTPStatus.OK, process_response(services, state, wants_url), auth)

    @router.post("/uploads", **openapi.describe("Create an upload form", {201: UploadForm}))
    def uploads() -> Response[Any]:
        """Create a presigned form that uploads an image of up to 100 MiB to S3.

        It is valid for one hour, and can be posted again. With `sha256`, it uploads that file only.
        """
        auth = authorize(services, router, Scope.PROCESS)
        request = body.read_json(router.current_event, UploadRequest)
        form = services.jobs.upload_form(auth.caller, request)
        return _respond(HTTPStatus.CREATED, UploadForm(**form), auth)


def _add_job_routes(router: APIGatewayHttpRouter, services: Services) -> None:
    @router.post("/jobs", **openapi.describe("Start a job without waiting for it", {202: Accepted}))
    def start(idempotency_key: IdempotencyKey = None) -> Response[Any]:
        """Start a job for an object of the uploads bucket or for an image URL."""
        auth = authorize(services, router, Scope.PROCESS)
        request = parse_job_request(body.read_json(router.current_event, JobRequest), auth.caller)
        _check_background(auth.caller, request, "options.background_key")
        job = services.jobs.submit(auth.caller, request, idempotency_key=idempotency_key)
        return _accepted(auth, JobState(job, "queued"), router.current_event)

    @router.get("/jobs/<job_id>", **openapi.describe("Get a job", {200: JobDocument}))
    def show(job_id: JobId) -> Response[Any]:
        """Get a job's status, current stage, metrics, and its result or error."""
        auth = authorize(services, router, Scope.READ)
        state = services.jobs.state(services.repository.find(auth.caller, job_id))
        request_id = router.current_event.request_context.request_id
        return _respond(HTTPStatus.OK, job_document(services, state, request_id), auth)

    @router.get("/jobs/<job_id>/events", **openapi.describe("List the events of a job", {200: Steps}))
    def events(job_id: JobId) -> Response[Any]:
        """List the events of the job's execution, oldest first."""
        auth = authorize(services, router, Scope.READ)
        rows = services.jobs.events(services.repository.find(auth.caller, job_id))
        steps = Steps(events=[Step(**{name: getattr(row, name) for name in Step.model_fields}) for row in rows])
        return _respond(HTTPStatus.OK, steps, auth)

    @router.delete("/jobs/<job_id>", **openapi.describe("Delete a job and its images", {204: None}))
    def delete(job_id: JobId) -> Response[Any]:
        """Stop the job if it runs, and delete its results, and its images if they were uploaded through the API."""
        auth = authorize(services, router, Scope.DELETE)
        services.jobs.delete(services.repository.find(auth.caller, job_id))
        return Response(HTTPStatus.NO_CONTENT.value, headers=auth.rate_limit.headers)


def _add_status_routes(router: APIGatewayHttpRouter, services: Services) -> None:
    @router.get(HEALTH, **openapi.describe("Check that the API responds", {200: Health}, is_open=True))
    def health() -> Response[Any]:
        """Respond without checking anything."""
        return _respond(HTTPStatus.OK, Health())

    @router.get("/ready", **openapi.describe("Check that jobs can run", {200: Ready, 503: Ready}, is_open=True))
    def ready() -> Response[Any]:
        """Check that buckets, tables, state machine and queue exist. The answer is up to 10 seconds old."""
        found = services.readiness.check()
        return _respond(HTTPStatus.OK if found.ready else HTTPStatus.SERVICE_UNAVAILABLE, found)


def parse_process_body(parsed: body.Body) -> tuple[ProcessRequest, bool]:
    """Return the request of ``POST /process``, and whether the caller wants a URL instead of the result itself.

    Raises:
        Problem: the image is missing or ambiguous, or a field has the wrong type.
    """
    fields = dict(parsed.fields)
    image = _one_of(parsed, fields, "image", "image_url")
    background = _one_of(parsed, fields, "background", "background_url", optional=True)
    delivery = _text(fields, "delivery") or "inline"
    if delivery not in ("inline", "url"):
        raise _invalid("delivery", delivery, "Use inline or url.")
    uploaded = parsed.files.get("image")
    request = ProcessRequest(
        image=image,
        name=_text(fields, "name") or (uploaded.name if uploaded else None),
        background=background,
        webhook_url=_text(fields, "webhook_url"),
        options=fields,
    )
    if unknown := sorted(set(parsed.files) - {"image", "background"}):
        raise _invalid(unknown[0], None, "Only image and background can be files.")
    return request, delivery == "url"


def parse_job_request(request: JobRequest, caller: Caller) -> ProcessRequest | ObjectRequest:
    """Return the request of ``POST /jobs``.

    Raises:
        Problem: the image is missing or ambiguous, or the caller may not process the object.
    """
    if (request.source is None) == (request.image_url is None):
        raise _invalid("source", None, "Send either source or image_url.")
    if request.source is None:
        return ProcessRequest(request.image_url or "", request.options, webhook_url=request.webhook_url)
    _check_access(caller, request.source.key, "source.key")
    return ObjectRequest(request.source.key, request.source.version_id, request.options, request.webhook_url)


def _check_background(caller: Caller, request: ProcessRequest | ObjectRequest, field: str) -> None:
    key = request.options.get("background_key")
    if isinstance(key, str):  # other types are rejected with the options
        _check_access(caller, key, field)


def _check_access(caller: Caller, key: str, field: str) -> None:
    """Raise a problem unless the caller may process an object of the uploads bucket."""
    if not is_own_key(caller.id, key) and Scope.BUCKET not in caller.scopes:
        raise Problem(
            403,
            "scope_missing",
            "The API key may only process objects that were uploaded with it.",
            field=field,
            value=key,
            remedy="Upload the image through POST /uploads, or use a key with the scope bucket.",
        )


def process_response(services: Services, state: JobState, wants_url: bool) -> ProcessResponse:
    """Return the response body for a successful job."""
    sidecar = _sidecar(state)
    is_inline = not wants_url and sidecar["image"]["bytes"] <= MAX_INLINE_BYTES
    return ProcessResponse(
        job_id=state.job.id,
        content_type=sidecar["image"]["content_type"],
        image=base64.b64encode(services.jobs.result(state)).decode() if is_inline else None,
        result_url=None if is_inline else services.jobs.result_url(state),
        metrics=metrics_of(sidecar),
        credits=state.credits or 0,
    )


def job_document(services: Services, state: JobState, request_id: str) -> JobDocument:
    """Return the response body of ``GET /jobs/<job_id>``."""
    error = state.report and problem_from_report(state.report, job_id=state.job.id).document(request_id)
    result = None
    if state.sidecar:
        image = state.sidecar["image"]
        facts = {name: image[name] for name in ("content_type", "width", "height", "bytes")}
        result = Result(url=services.jobs.result_url(state), key=state.sidecar["result"]["key"], **facts)
    return JobDocument(
        job_id=state.job.id,
        status=state.status,
        created_at=state.job.created_at,
        source_key=state.job.source_key,
        stage=state.stage,
        result=result,
        metrics=metrics_of(state.sidecar) if state.sidecar else None,
        credits=state.credits,
        error=ProblemDocument(**error) if error else None,
    )


def metrics_of(sidecar: Mapping[str, Any]) -> Metrics:
    """Return the metrics in a sidecar."""
    return Metrics(
        timings_s=sidecar["timings_s"],
        model=sidecar["model"],
        quality=sidecar["quality"],
        source={name: sidecar["source"][name] for name in ("format", "bytes", "width", "height")},
        cache_hit=sidecar["cache"]["hit"],
        degraded=sidecar["degraded"],
        warnings=sidecar["warnings"],
    )


def _sidecar(state: JobState) -> Mapping[str, Any]:
    assert state.sidecar is not None  # noqa: S101  a successful job
    return state.sidecar


def _one_of(parsed: body.Body, fields: dict[str, Any], name: str, url_name: str, *, optional: bool = False) -> Any:
    """Remove an image from a body's fields, and return its bytes or URL."""
    inline, url = fields.pop(name, None), fields.pop(url_name, None)
    given = [part for part in (parsed.files.get(name), inline, url) if part is not None]
    if len(given) > 1 or not (given or optional):
        raise _invalid(name, None, f"Send either {name}, as a file or in base64, or {url_name}.")
    if not given:
        return None
    if url is not None:
        return _text({url_name: url}, url_name)
    return given[0].data if isinstance(given[0], body.UploadedFile) else body.from_base64(name, inline)


def _text(fields: dict[str, Any], name: str) -> str | None:
    """Remove a text from a body's fields, and return it."""
    value = fields.pop(name, None)
    if value is not None and not (isinstance(value, str) and value):
        raise _invalid(name, value, "Send a non-empty string.")
    return value


def _invalid(name: str, value: Any, remedy: str) -> Problem:
    return Problem(
        400,
        "invalid_request",
        "The field is missing or invalid.",
        field=name,
        value=value,
        remedy=remedy,
    )


def _with_top_level_field(problem: Problem) -> Problem:
    """Name the field as in the body of ``POST /process``, where options are top-level members."""
    return replace(problem, field=problem.field and problem.field.removeprefix("options."))


def _accepted(auth: Authorization, state: JobState, event: APIGatewayProxyEventV2) -> Response[Any]:
    location = f"{IAM if event.raw_path.startswith(f'{IAM}/') else ''}/jobs/{state.job.id}"
    accepted = Accepted(
        job_id=state.job.id, status="queued" if state.status == "queued" else "running", location=location
    )
    headers = {"Location": location, "Retry-After": str(_POLL_AFTER_S)}
    return _respond(HTTPStatus.ACCEPTED, accepted, auth, headers)


def _respond(
    status: HTTPStatus, model: BaseModel, auth: Authorization | None = None, headers: Mapping[str, str] | None = None
) -> Response[Any]:
    rate_limit = auth.rate_limit.headers if auth else {}
    return Response(
        status.value,
        openapi.JSON,
        model.model_dump_json(exclude_none=True),
        headers={**rate_limit, **(headers or {})},
    )
