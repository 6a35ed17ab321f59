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
from functions.api.auth import Admission, Caller
from functions.api.delivery import MAX_INLINE_BYTES, admit, run
from functions.api.jobs import State
from functions.api.problems import Problem, of_report, problem_of
from functions.api.repository import own_prefix
from functions.api.requests import ObjectRequest, ProcessRequest
from functions.api.schemas import (
    Accepted,
    Health,
    JobDocument,
    JobRequest,
    Metrics,
    ProblemDocument,
    ProcessAnswer,
    ProcessBody,
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
"""What the paths begin with that take requests signed with AWS credentials."""

_ASK_AGAIN_S: Final = 2

IdempotencyKey = Annotated[
    str | None, Header(alias="Idempotency-Key", description="sent again, it starts no second job")
]
JobId = Annotated[str, Path(description="as POST /process and POST /jobs answer it")]


def told() -> dict[str, openapi.Operation]:
    """Return what the document says of the routes that they cannot say of themselves."""
    return {
        "POST /uploads": openapi.takes_json(UploadRequest),
        "POST /jobs": openapi.takes_json(JobRequest),
        "POST /process": openapi.takes(ProcessBody, openapi.JSON, openapi.FORM, files=("image", "background")),
    }


def routes(services: Services) -> APIGatewayHttpRouter:
    """Return the API's own routes."""
    router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]

    @router.post(
        "/process", **openapi.described("Cut a picture out, and wait for it", {200: ProcessAnswer, 202: Accepted})
    )
    def process(idempotency_key: IdempotencyKey = None) -> Response[Any]:
        """Send a picture and have its cut-out.

        What is not done within the gateway's time is answered with 202 and the job's address.
        """
        admission = admit(services, router, Scope.PROCESS)
        order, wants_url = process_order(body.read(router.current_event))
        _check_background(admission.caller, order, "background_key")
        try:
            state = run(services, router.current_event, admission.caller, order, idempotency_key)
        except BackgroundRemoverError as error:
            raise _as_sent(problem_of(error)) from error
        if state.status in ("queued", "running"):
            return _accepted(admission, state, router.current_event)
        if state.report is not None:
            raise _as_sent(of_report(state.report, job_id=state.job.id))
        return _answer(HTTPStatus.OK, process_answer(services, state, wants_url), admission)

    @router.post("/uploads", **openapi.described("Get a form to upload a picture with", {201: UploadForm}))
    def uploads() -> Response[Any]:
        """Have S3 take a picture of up to 100 MiB, straight from a browser. The form lives for an hour."""
        admission = admit(services, router, Scope.PROCESS)
        request = body.read_json(router.current_event, UploadRequest)
        form = services.jobs.upload_form(admission.caller, request.name, request.content_type, request.max_bytes)
        return _answer(HTTPStatus.CREATED, UploadForm(**form), admission)

    @router.post("/jobs", **openapi.described("Start a job and do not wait for it", {202: Accepted}))
    def start(idempotency_key: IdempotencyKey = None) -> Response[Any]:
        """Process an object of the uploads bucket, or what lies at a URL."""
        admission = admit(services, router, Scope.PROCESS)
        request = body.read_json(router.current_event, JobRequest)
        order = job_order(request, admission.caller)
        _check_background(admission.caller, order, "options.background_key")
        job = services.jobs.submit(admission.caller, order, idempotency_key=idempotency_key)
        return _accepted(admission, State(job, "queued"), router.current_event)

    @router.get("/jobs/<job_id>", **openapi.described("See what has become of a job", {200: JobDocument}))
    def show(job_id: JobId) -> Response[Any]:
        """Return status, stage, timings, and the result or what went wrong."""
        admission = admit(services, router, Scope.READ)
        state = services.jobs.state(services.repository.find(admission.caller, job_id))
        request_id = router.current_event.request_context.request_id
        return _answer(HTTPStatus.OK, job_document(services, state, request_id), admission)

    @router.get("/jobs/<job_id>/events", **openapi.described("See each step of a job", {200: Steps}))
    def events(job_id: JobId) -> Response[Any]:
        """Return the events of the job's execution, oldest first."""
        admission = admit(services, router, Scope.READ)
        steps = services.jobs.events(services.repository.find(admission.caller, job_id))
        answer = Steps(events=[Step(**{name: getattr(row, name) for name in Step.model_fields}) for row in steps])
        return _answer(HTTPStatus.OK, answer, admission)

    @router.delete("/jobs/<job_id>", **openapi.described("Stop and forget a job, and delete its pictures", {204: None}))
    def delete(job_id: JobId) -> Response[Any]:
        """Stop the job if it runs; delete its picture, if that came through the API, and all that was made of it."""
        admission = admit(services, router, Scope.DELETE)
        services.jobs.delete(services.repository.find(admission.caller, job_id))
        return Response(HTTPStatus.NO_CONTENT.value, headers=_headers(admission))

    @router.get("/health", **openapi.described("Whether the API answers", {200: Health}, is_open=True))
    def health() -> Response[Any]:
        """Answer at once, and look at nothing."""
        return _answer(HTTPStatus.OK, Health())

    @router.get("/ready", **openapi.described("Whether a job would be done", {200: Ready, 503: Ready}, is_open=True))
    def ready() -> Response[Any]:
        """Look whether buckets, tables, state machine and queue are there; the answer is ten seconds old at most."""
        found = services.readiness.look()
        return _answer(HTTPStatus.OK if found.ready else HTTPStatus.SERVICE_UNAVAILABLE, found)

    return router


def process_order(said: body.Body) -> tuple[ProcessRequest, bool]:
    """Return what a request to process asks for, and whether it wants a URL and not the result itself.

    Raises:
        Problem: it has no picture or several, or a member of another kind than it should be.
    """
    fields = dict(said.fields)
    image = _one_of(said, fields, "image", "image_url")
    background = _one_of(said, fields, "background", "background_url", optional=True)
    wanted = _text(fields, "delivery") or "inline"
    if wanted not in ("inline", "url"):
        raise _wrong("delivery", wanted, "Allowed are inline and url.")
    uploaded = said.files.get("image")
    order = ProcessRequest(
        image=image,
        name=_text(fields, "name") or (uploaded.name if uploaded else None),
        background=background,
        webhook_url=_text(fields, "webhook_url"),
        options=fields,
    )
    if unknown := sorted(set(said.files) - {"image", "background"}):
        raise _wrong(unknown[0], None, "Files are image and background.")
    return order, wanted == "url"


def job_order(request: JobRequest, caller: Caller) -> ProcessRequest | ObjectRequest:
    """Return what a request for a job asks for.

    Raises:
        Problem: it names no picture or two, or one that is not the caller's to process.
    """
    if (request.source is None) == (request.image_url is None):
        raise _wrong("source", None, "Give source or image_url, and not both.")
    if request.source is None:
        return ProcessRequest(request.image_url or "", request.options, webhook_url=request.webhook_url)
    _check_access(caller, request.source.key, "source.key")
    return ObjectRequest(request.source.key, request.source.version_id, request.options, request.webhook_url)


def _check_background(caller: Caller, order: ProcessRequest | ObjectRequest, field: str) -> None:
    key = order.options.get("background_key")
    if isinstance(key, str):  # else the options are refused for it
        _check_access(caller, key, field)


def _check_access(caller: Caller, key: str, field: str) -> None:
    """Refuse an object that is not the caller's to have in a picture."""
    if not key.startswith(own_prefix(caller.id)) and Scope.BUCKET not in caller.scopes:
        raise Problem(
            403,
            "scope_missing",
            "The key may process what was uploaded with it, and no other objects of the bucket.",
            field=field,
            value=key,
            remedy="Upload through POST /uploads, or use a key with the scope bucket.",
        )


def process_answer(services: Services, state: State, wants_url: bool) -> ProcessAnswer:
    """Return the answer to a request whose picture is finished."""
    sidecar = _sidecar(state)
    is_inline = not wants_url and sidecar["image"]["bytes"] <= MAX_INLINE_BYTES
    return ProcessAnswer(
        job_id=state.job.id,
        content_type=sidecar["image"]["content_type"],
        image=base64.b64encode(services.jobs.result(state)).decode() if is_inline else None,
        result_url=None if is_inline else services.jobs.result_url(state),
        metrics=metrics_of(sidecar),
    )


def job_document(services: Services, state: State, request_id: str) -> JobDocument:
    """Return all that is known of a job."""
    failure = state.report and of_report(state.report, job_id=state.job.id).document(request_id)
    result = None
    if state.sidecar:
        image = state.sidecar["image"]
        kept = {name: image[name] for name in ("content_type", "width", "height", "bytes")}
        result = Result(url=services.jobs.result_url(state), key=state.sidecar["result"]["key"], **kept)
    return JobDocument(
        job_id=state.job.id,
        status=state.status,
        created_at=state.job.created_at,
        source_key=state.job.source_key,
        stage=state.stage,
        result=result,
        metrics=metrics_of(state.sidecar) if state.sidecar else None,
        error=ProblemDocument(**failure) if failure else None,
    )


def metrics_of(sidecar: Mapping[str, Any]) -> Metrics:
    """Return what a sidecar tells of the work."""
    return Metrics(
        timings_s=sidecar["timings_s"],
        model=sidecar["model"],
        quality=sidecar["quality"],
        source={name: sidecar["source"][name] for name in ("format", "bytes", "width", "height")},
        cache_hit=sidecar["cache"]["hit"],
        degraded=sidecar["degraded"],
        warnings=sidecar["warnings"],
    )


def _sidecar(state: State) -> Mapping[str, Any]:
    assert state.sidecar is not None  # noqa: S101  whoever asks has looked at the status
    return state.sidecar


def _one_of(said: body.Body, fields: dict[str, Any], name: str, url_name: str, *, optional: bool = False) -> Any:
    """Take a picture out of a body: a file, base64, or a URL."""
    inline, url = fields.pop(name, None), fields.pop(url_name, None)
    given = [part for part in (said.files.get(name), inline, url) if part is not None]
    if len(given) > 1 or not (given or optional):
        raise _wrong(name, None, f"Give {name}, as a file or in base64, or {url_name}, and only one of them.")
    if not given:
        return None
    if url is not None:
        return _text({url_name: url}, url_name)
    return given[0].data if isinstance(given[0], body.UploadedFile) else body.from_base64(name, inline)


def _text(fields: dict[str, Any], name: str) -> str | None:
    """Take a text out of a body's fields."""
    value = fields.pop(name, None)
    if value is not None and not (isinstance(value, str) and value):
        raise _wrong(name, value, "Send text.")
    return value


def _wrong(name: str, value: Any, remedy: str) -> Problem:
    return Problem(
        400,
        "invalid_request",
        "The member is missing, or not what it should be.",
        field=name,
        value=value,
        remedy=remedy,
    )


def _as_sent(problem: Problem) -> Problem:
    """Name the field as it was sent: with /process, options stand beside the picture."""
    return replace(problem, field=problem.field and problem.field.removeprefix("options."))


def _accepted(admission: Admission, state: State, event: APIGatewayProxyEventV2) -> Response[Any]:
    location = f"{IAM if event.raw_path.startswith(f'{IAM}/') else ''}/jobs/{state.job.id}"
    answer = Accepted(
        job_id=state.job.id, status="queued" if state.status == "queued" else "running", location=location
    )
    headers = {"Location": location, "Retry-After": str(_ASK_AGAIN_S)}
    return _answer(HTTPStatus.ACCEPTED, answer, admission, headers)


def _answer(
    status: HTTPStatus, answer: BaseModel, admission: Admission | None = None, headers: Mapping[str, str] | None = None
) -> Response[Any]:
    return Response(
        status.value,
        openapi.JSON,
        answer.model_dump_json(exclude_none=True),
        headers={**_headers(admission), **(headers or {})},
    )


def _headers(admission: Admission | None) -> dict[str, str]:
    return dict(admission.rate.headers) if admission else {}
