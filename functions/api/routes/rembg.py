"""The API of rembg's server: its parameters, for this project's jobs.

What has no meaning here is read as rembg reads it, and named in the header ``X-Warnings``. Errors have the problem
format of the API's own routes, where ``detail`` is, as with rembg, what went wrong.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, InstanceOf, ValidationError

from core.errors import MAX_SHOWN_CHARS
from core.types import Precision
from functions.api import body, openapi, problems
from functions.api.auth import Admission
from functions.api.delivery import admit, answers, deliver, sentence, warned
from functions.api.problems import Problem
from functions.api.requests import ProcessRequest
from functions.api.services import Services
from functions.contracts.api_key import Scope

PATH: Final = "/api/remove"

_NAMES: Final = {"image_url": "url", "options.model": "model"}
"""What rembg calls those inputs that have another name here."""


def _color(text: str) -> str:
    channels = [int(channel) for channel in text.split(",")]
    if len(channels) != len("rgba") or not all(0 <= channel <= 255 for channel in channels):
        raise ValueError("a colour is red,green,blue,alpha, each 0 to 255")
    return f"#{bytes(channels).hex()}"


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("this is no JSON that can be read") from None


class Parameters(BaseModel):
    """What ``/api/remove`` is asked for beside the picture; those that rembg does not have are in ``model_extra``."""

    model_config = ConfigDict(frozen=True, extra="allow")

    model: str = "auto"
    a: bool = False
    af: Annotated[int, Field(ge=0, le=255)] = 240
    ab: Annotated[int, Field(ge=0, le=255)] = 10
    ae: Annotated[int, Field(ge=0)] = 10
    om: bool = False
    ppm: bool = False
    dc: bool = True
    vm: bool = False
    bgc: Annotated[str, AfterValidator(_color)] | None = None
    extras: Annotated[str, AfterValidator(_json)] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Those of :class:`core.options.Options` that were asked for."""
        precision = Precision.HIGH if self.a or self.vm else Precision.STANDARD
        options = {"model": self.model, "precision_level": precision.value, "output": "mask" if self.om else "cutout"}
        return options if self.om or self.bgc is None else {**options, "background_color": self.bgc}

    @property
    def warnings(self) -> list[str]:
        """What was asked for and makes no difference."""
        reasons = {
            **dict.fromkeys(("af", "ab", "ae"), "the edge is found by what is known of it"),
            "ppm": "masks stay soft" if self.ppm else None,
            "dc": None if self.dc else "the old background's colours are always taken out",
            "vm": "alpha is solved for in closed form, as with a" if self.vm else None,
            "bgc": "a mask has no background" if self.om else None,
            "extras": "nothing here takes them",
            **dict.fromkeys(self.model_extra or {}, "there is no such parameter"),
        }
        return [
            f"{name} has no effect, {reason}"
            for name, reason in reasons.items()
            if reason and name in self.model_fields_set
        ]


class _Upload(Parameters):
    file: InstanceOf[body.UploadedFile]


def told() -> dict[str, openapi.Operation]:
    """Return what the document says of the routes that they cannot say of themselves."""
    return {
        "GET /api/remove": {
            **openapi.asks(Parameters, url="where the picture lies"),
            **answers("image/png"),
        },
        "POST /api/remove": {
            **openapi.takes(_Upload, openapi.FORM, required=("file",)),
            **answers("image/png"),
        },
    }


def parameters(given: Mapping[str, Any]) -> Parameters:
    """Return what is asked for beside the picture. A parameter that is empty counts as one that is not there.

    Raises:
        Problem: ``invalid_parameter``.
    """
    try:
        return Parameters.model_validate({name: value for name, value in given.items() if value not in (None, "")})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
    raise _refused(str(first["loc"][0]), sentence(first["msg"]))


def from_url(query: Mapping[str, str]) -> tuple[ProcessRequest, list[str]]:
    """Return the order that a query makes, and what of it has no effect.

    Raises:
        Problem: ``invalid_parameter``.
    """
    given = dict(query)
    url = given.pop("url", "")
    if not url:
        raise _refused("url", "The picture's URL is missing.")
    asked = parameters(given)
    return ProcessRequest(url, asked.options), asked.warnings


def from_upload(query: Mapping[str, str], said: body.Body) -> tuple[ProcessRequest, list[str]]:
    """Return the order that a form makes, and what of it has no effect. Parameters may be in the query, too.

    Raises:
        Problem: ``invalid_parameter``.
    """
    files = dict(said.files)
    file = files.pop("file", None)
    if file is None:
        raise _refused("file", "The picture is missing, which is a file in a multipart form.")
    if twice := sorted(query.keys() & said.fields.keys()):
        raise _refused(twice[0], "The parameter is in the query and in the form.")
    asked = parameters({**query, **said.fields, **files})
    return ProcessRequest(file.data, asked.options, name=file.name), asked.warnings


def refusal(problem: Problem, request_id: str) -> Response[str]:
    """Return the answer to a request that failed."""
    named = dataclasses.replace(problem, field=_NAMES.get(problem.field or "", problem.field))
    return problems.refusal(named, request_id)


def _refused(name: str, reason: str) -> Problem:
    name = name[:MAX_SHOWN_CHARS]
    return Problem(422, "invalid_parameter", reason, field=name, remedy="See rembg's server for what it takes.")


def routes(services: Services) -> APIGatewayHttpRouter:
    """Return the routes of rembg's server."""
    router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]

    def remove(order: ProcessRequest, warnings: list[str], admission: Admission) -> Response[Any]:
        delivery = deliver(services, router.current_event, admission.caller, order)
        told = warned([*warnings, *delivery.sidecar["warnings"]])
        return delivery.picture({**admission.rate.headers, **told})

    @router.get(PATH, summary="Cut out what lies at a URL, as rembg's server does", enable_validation=False)
    def remove_from_url() -> Response[Any]:
        """Take rembg's parameters in the query, and answer with a PNG."""
        admission = admit(services, router, Scope.PROCESS)
        return remove(*from_url(router.current_event.query_string_parameters), admission)

    @router.post(PATH, summary="Cut a picture out, as rembg's server does", enable_validation=False)
    def remove_from_upload() -> Response[Any]:
        """Take a form with rembg's parameters, and answer with a PNG."""
        event = router.current_event
        admission = admit(services, router, Scope.PROCESS)
        return remove(*from_upload(event.query_string_parameters, body.read(event)), admission)

    return router
