"""Routes for clients of rembg's server.

Parameters that have no effect here are parsed as rembg does, and reported in the header ``X-Warnings``. Errors have
the format of the API's own routes; like rembg's, they have the member ``detail``.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, InstanceOf, ValidationError

from core.errors import MAX_SHOWN_CHARS
from core.types import Precision
from functions.api import body, openapi, problems
from functions.api.auth import Authorization
from functions.api.problems import Problem
from functions.api.processing import authorize, refusal, result_responses, run_to_result, warnings_header
from functions.api.requests import ProcessRequest
from functions.api.services import Services
from functions.contracts.api_key import Scope

PATH: Final = "/api/remove"

_NAMES: Final = {"image_url": "url", "options.model": "model"}
"""rembg's names of fields that have another name here."""


def _color(text: str) -> str:
    channels = [int(channel) if re.fullmatch(r"\s*[0-9]{1,3}\s*", channel) else 256 for channel in text.split(",")]
    if len(channels) != len("rgba") or max(channels) > 255:
        raise ValueError("send red,green,blue,alpha, each 0 to 255")
    return f"#{bytes(channels).hex()}"


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("send JSON that is not nested deeply") from None


class Parameters(BaseModel):
    """Parameters of ``/api/remove`` other than the image. Unknown ones are in ``model_extra``."""

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
        """The options that the parameters map to, see :class:`core.options.Options`."""
        precision = Precision.HIGH if self.a or self.vm else Precision.STANDARD
        options = {"model": self.model, "precision_level": precision.value, "output": "mask" if self.om else "cutout"}
        return options if self.om or self.bgc is None else {**options, "background_color": self.bgc}

    @property
    def warnings(self) -> list[str]:
        """One warning for each parameter that has no effect."""
        reasons = {
            **dict.fromkeys(("af", "ab", "ae"), "the unknown band is derived from the mask"),
            "ppm": "masks are not post-processed" if self.ppm else None,
            "dc": None if self.dc else "foreground colors are always decontaminated",
            "vm": "the closed-form solver computes alpha, as with a" if self.vm else None,
            "bgc": "a mask has no background" if self.om else None,
            "extras": "no model here has extra parameters",
            **dict.fromkeys(self.model_extra or {}, "the parameter is unknown"),
        }
        return [
            f"{name} has no effect: {reason}"
            for name, reason in reasons.items()
            if reason and name in self.model_fields_set
        ]


class _Upload(Parameters):
    file: InstanceOf[body.UploadedFile]


def operations() -> dict[str, openapi.Operation]:
    """Return the members of OpenAPI operations that Powertools cannot derive from the routes."""
    return {
        "GET /api/remove": {
            **openapi.query_parameters(Parameters, url="URL of the image"),
            **result_responses("image/png"),
        },
        "POST /api/remove": {
            **openapi.request_body(_Upload, openapi.FORM, required=("file",)),
            **result_responses("image/png"),
        },
    }


def parse_parameters(given: Mapping[str, Any]) -> Parameters:
    """Parse the parameters other than the image. Empty ones are ignored.

    Raises:
        Problem: ``invalid_parameter``.
    """
    try:
        return Parameters.model_validate({name: value for name, value in given.items() if value not in (None, "")})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
    name = str(first["loc"][0])
    raise _invalid(name, refusal(Parameters, name, first))


def from_url(query: Mapping[str, str]) -> tuple[ProcessRequest, list[str]]:
    """Return the request in a query, and its warnings.

    Raises:
        Problem: ``invalid_parameter``.
    """
    given = dict(query)
    for name, value in given.items():
        body.check_number(name, value)
    url = given.pop("url", "")
    if not url:
        raise _invalid("url", "The image URL is missing.")
    parameters = parse_parameters(given)
    return ProcessRequest(url, parameters.options), parameters.warnings


def from_upload(query: Mapping[str, str], parsed: body.Body) -> tuple[ProcessRequest, list[str]]:
    """Return the request in a form, and its warnings. The query may have parameters, too.

    Raises:
        Problem: ``invalid_parameter``.
    """
    files = dict(parsed.files)
    file = files.pop("file", None)
    if file is None:
        raise _invalid("file", "The image is missing. Send it as a file in a multipart form.")
    for name, value in query.items():
        body.check_number(name, value)
    if repeated := sorted(query.keys() & parsed.fields.keys()):
        raise _invalid(repeated[0], "The parameter is in both the query and the form.")
    parameters = parse_parameters({**query, **parsed.fields, **files})
    return ProcessRequest(file.data, parameters.options, name=file.name), parameters.warnings


def error_response(problem: Problem, request_id: str) -> Response[str]:
    """Return the response to a failed request, with rembg's field names."""
    renamed = dataclasses.replace(problem, field=_NAMES.get(problem.field or "", problem.field))
    return problems.error_response(renamed, request_id)


def _invalid(name: str, reason: str) -> Problem:
    name = name[:MAX_SHOWN_CHARS]
    return Problem(
        422,
        "invalid_parameter",
        reason,
        field=name,
        remedy=f"The parameters are: {', '.join(Parameters.model_fields)}, and url or file.",
    )


def routes(services: Services) -> APIGatewayHttpRouter:
    """Return a router with the routes of rembg's server."""
    router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]

    def remove(request: ProcessRequest, warnings: list[str], auth: Authorization) -> Response[Any]:
        result = run_to_result(services, router.current_event, auth.caller, request)
        headers = warnings_header([*warnings, *result.sidecar["warnings"]])
        return result.response({**auth.rate_limit.headers, **headers})

    @router.get(PATH, summary="Process an image URL (rembg)", enable_validation=False)
    def remove_from_url() -> Response[Any]:
        """Accept the parameters of rembg's server in the query, and respond with a PNG."""
        auth = authorize(services, router, Scope.PROCESS)
        return remove(*from_url(router.current_event.query_string_parameters), auth)

    @router.post(PATH, summary="Process an uploaded image (rembg)", enable_validation=False)
    def remove_from_upload() -> Response[Any]:
        """Accept a form with the parameters of rembg's server, and respond with a PNG."""
        event = router.current_event
        auth = authorize(services, router, Scope.PROCESS)
        return remove(*from_upload(event.query_string_parameters, body.read(event)), auth)

    return router
