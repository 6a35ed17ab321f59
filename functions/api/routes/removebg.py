"""Routes for clients of remove.bg.

Parameters, defaults, limits, headers and error codes are those of remove.bg's API description. A parameter that the
pipeline does not support, or that remove.bg does not have, is rejected by name, never ignored.
"""

import base64
import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from PIL import ImageColor
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, ValidationError

from core.errors import MAX_SHOWN_CHARS, InvalidOptionsError
from core.options import REGION_EXCEEDS_PICTURE, Options
from functions.api import body, openapi
from functions.api.auth import Usage
from functions.api.problems import Problem
from functions.api.processing import (
    JobResult,
    authorize,
    refusal,
    result_responses,
    run_to_result,
    warnings_header,
)
from functions.api.requests import ProcessRequest
from functions.api.services import Services
from functions.contracts.api_key import Scope

PATH: Final = "/v1.0/"

HEADERS: Final = (
    "X-Width",
    "X-Height",
    "X-Type",
    "X-Credits-Charged",
    "X-Foreground-Top",
    "X-Foreground-Left",
    "X-Foreground-Width",
    "X-Foreground-Height",
)

_MEGAPIXELS: Final = {"preview": 0.25, "small": 0.25, "regular": 0.25, "medium": 1.5, "hd": 4.0, "50MP": 50.0}
_DEFAULT_MEGAPIXELS: Final = 25.0  # full, 4k and auto
_MAX_PNG_MEGAPIXELS: Final = 10.0  # limits all sizes

_FORMATS: Final = {"png": "png", "jpg": "jpeg", "webp": "webp", "zip": "zip"}

_PARAMETERS: Final = {
    "output": "channels",
    "max_megapixels": "size",
    "background_color": "bg_color",
}
"""remove.bg's names of options that have another name here."""

_CODES: Final = {
    "quota_exceeded": "insufficient_credits",
    "scope_missing": "auth_failed",
    "empty_image": "failed_to_read_image",
    "corrupt_image": "failed_to_read_image",
    "unsupported_format": "invalid_file_type",
    "animated_image": "invalid_file_type",
    "too_many_pixels": "resolution_too_high",
    "image_too_small": "invalid_dimensions",
}
"""remove.bg's codes of problems that have another code here."""

_URL_CODES: Final = {
    ("image_url", "url_refused"): "invalid_image_url",
    ("image_url", "download_failed"): "failed_image_download",
    ("background_url", "url_refused"): "invalid_bg_image_url",
    ("background_url", "download_failed"): "failed_bg_download",
}

_JSON_ONLY: Final = re.compile(r"\s*application/json\s*(;[^,]*)?")
"""An ``Accept`` header that accepts nothing but JSON. HTTP libraries often list JSON among others by default."""

_STATUSES: Final = {401: 403, 402: 402, 403: 403, 404: 404, 429: 429}
"""remove.bg's statuses of 4xx problems; all others are 400."""


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("send an http or https URL")
    return url


def _visible_color(color: str) -> str | None:
    """Return ``#rrggbb``, or ``#rrggbbaa`` if the color is translucent, or None if it is fully transparent."""
    digits = color.removeprefix("#").lower()
    if re.fullmatch(r"[0-9a-f]{3,4}|[0-9a-f]{6}|[0-9a-f]{8}", digits):
        digits = digits if len(digits) >= len("rrggbb") else "".join(2 * digit for digit in digits)
        return None if digits[6:] == "00" else "#" + digits[:6] + digits[6:].replace("ff", "")
    if color.lower() not in ImageColor.colormap:
        raise ValueError("send 3, 4, 6 or 8 hexadecimal digits, or the name of a CSS color")
    return "#{:02x}{:02x}{:02x}".format(*ImageColor.getrgb(color))


def _spaced(text: str) -> str:
    """Return a list of values separated by single spaces, the format of options."""
    return " ".join(text.replace(",", " ").split())


def _with_units(margins: str) -> str:
    """Return margins with units. A number without a unit is in pixels."""
    return re.sub(r"(\d)(?= |$)", r"\1px", _spaced(margins))


def _only(supported: bool, reason: str) -> AfterValidator:
    def check(value: bool) -> bool:
        if value is not supported:
            raise ValueError(reason)
        return value

    return AfterValidator(check)


FileUrl = Annotated[str, AfterValidator(_check_url)]
Level = Annotated[
    Literal["none", "1", "2", "latest"], BeforeValidator(lambda level: str(level) if type(level) is int else level)
]


class Parameters(BaseModel):
    """Parameters of ``POST /v1.0/removebg``, with remove.bg's names and defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, str_strip_whitespace=True)

    image_file: InstanceOf[body.UploadedFile] | None = None
    image_file_b64: str | None = None
    image_url: FileUrl | None = None
    size: Literal["preview", "small", "regular", "medium", "hd", "4k", "full", "50MP", "auto"] = "preview"
    type: Literal["auto", "person", "product", "car", "animal", "graphic", "transportation"] = "auto"
    type_level: Level = "1"
    format: Literal["auto", "png", "jpg", "webp", "zip"] = "auto"
    channels: Literal["rgba", "alpha"] = "rgba"
    roi: Annotated[str, AfterValidator(_spaced)] | None = None
    crop: bool = False
    crop_margin: Annotated[str, AfterValidator(_with_units)] | None = None
    scale: str | None = None
    position: Annotated[str, AfterValidator(_spaced)] | None = None
    bg_color: Annotated[str, AfterValidator(_visible_color)] | None = None
    bg_image_file: InstanceOf[body.UploadedFile] | None = None
    bg_image_url: FileUrl | None = None
    add_shadow: Annotated[bool, _only(False, "shadows are not supported, send false")] = False
    shadow_type: Literal["none"] = "none"
    shadow_opacity: Annotated[float, Field(ge=0, le=100)] = 100
    semitransparency: Annotated[
        bool, _only(True, "opaque output of semitransparent parts is not supported, send true")
    ] = True

    @property
    def options(self) -> dict[str, Any]:
        """The options that the parameters map to, see :class:`core.options.Options`."""
        options = {
            "output": "mask" if self.channels == "alpha" else "cutout",
            "format": self._format,
            "max_megapixels": self._max_megapixels,
            "crop": self.crop,
            "crop_margin": self.crop_margin,
            "roi": self.roi,
            "scale": self.scale,
            "position": self.position,
            "background_color": self.bg_color,
        }
        return {name: value for name, value in options.items() if value is not None}

    @property
    def background(self) -> bytes | str | None:
        """The background image's bytes, or its URL."""
        return self.bg_image_file.data if self.bg_image_file else self.bg_image_url

    @property
    def warnings(self) -> list[str]:
        """One warning for each parameter that has no effect."""
        return [] if self.type == "auto" else [f"type={self.type} has no effect: subjects of any type are segmented"]

    @property
    def _format(self) -> str:
        if self.format != "auto":
            return _FORMATS[self.format]
        is_opaque = self.background is not None or len(self.bg_color or "") == len("#rrggbb")
        return "jpeg" if is_opaque else "png"

    @property
    def _max_megapixels(self) -> float:
        limit = _MEGAPIXELS.get(self.size, _DEFAULT_MEGAPIXELS)
        return min(limit, _MAX_PNG_MEGAPIXELS) if self._format == "png" else limit


_ERRORS: Final = {
    "type": "object",
    "required": ["errors"],
    "properties": {
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["title", "code", "detail"],
                "properties": {name: {"type": "string"} for name in ("title", "code", "detail")},
            },
        }
    },
}
_CONTENT_TYPES: Final = ("image/png", "image/jpeg", "image/webp", "application/zip", openapi.JSON)


def operations() -> dict[str, openapi.Operation]:
    """Return the members of OpenAPI operations that Powertools cannot derive from the routes."""
    return {
        "POST /v1.0/removebg": {
            **openapi.request_body(Parameters, openapi.FORM, openapi.URLENCODED, openapi.JSON),
            **result_responses(*_CONTENT_TYPES, error=openapi.JSON, schema=_ERRORS),
        },
        "GET /v1.0/account": openapi.file_responses(
            openapi.JSON, description="The balance of credits.", error=openapi.JSON, schema=_ERRORS
        ),
    }


def parse_parameters(parsed: body.Body) -> Parameters:
    """Parse the parameters in a body. Empty fields and nulls are ignored.

    Raises:
        Problem: ``unknown_parameter``, or ``invalid_`` and the parameter's name.
    """
    given = {name: value for name, value in (parsed.fields | parsed.files).items() if value not in (None, "")}
    try:
        return Parameters.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
    name = str(first["loc"][0])[:MAX_SHOWN_CHARS]
    if first["type"] == "extra_forbidden":
        raise _invalid(
            "unknown_parameter", name, f"The parameter is unknown. Use one of {', '.join(Parameters.model_fields)}."
        )
    raise _invalid(f"invalid_{name}", name, refusal(Parameters, name, first))


def to_process_request(parameters: Parameters) -> ProcessRequest:
    """Return the request that the parameters map to.

    Raises:
        Problem: there is not exactly one image, there are several backgrounds, or an option is invalid.
    """
    sources = [parameters.image_file, parameters.image_file_b64, parameters.image_url]
    if (given := len(sources) - sources.count(None)) != 1:
        code = "multiple_sources" if given else "missing_source"
        raise _invalid(code, "image_file", "Send one of image_file, image_file_b64 and image_url.")
    backgrounds = [parameters.bg_color, parameters.bg_image_file, parameters.bg_image_url]
    if len(backgrounds) - backgrounds.count(None) > 1:
        raise _invalid(
            "multiple_bg_sources", "bg_image_file", "Send at most one of bg_color, bg_image_file and bg_image_url."
        )
    _check_options(parameters)
    return ProcessRequest(
        image=_image(parameters),
        name=parameters.image_file.name if parameters.image_file else None,
        options=parameters.options,
        background=parameters.background,
    )


def _check_options(parameters: Parameters) -> None:
    # A placeholder: the background gets its key when it is stored.
    with_background = {"background_key": "backgrounds/"} if parameters.background is not None else {}
    try:
        Options.parse({**parameters.options, **with_background})
    except InvalidOptionsError as error:
        name = _parameter(error.field)
        raise _invalid(f"invalid_{name}", name, f"{error.message}. {_in_own_words(error)}") from None


def _image(parameters: Parameters) -> bytes | str:
    if parameters.image_file:
        return parameters.image_file.data
    if parameters.image_url:
        return parameters.image_url
    try:
        return body.from_base64("image_file_b64", "".join((parameters.image_file_b64 or "").split()))
    except Problem as problem:
        raise _invalid("failed_to_read_image", "image_file_b64", problem.detail or "") from None


def _parameter(field: str) -> str:
    name = field.removeprefix("options.")
    return _PARAMETERS.get(name, name)


def _in_own_words(error: InvalidOptionsError) -> str:
    """Return an error's remedy with remove.bg's name of the option."""
    option = error.field.removeprefix("options.")
    remedy = error.remedy.removeprefix(f"{option}: ")
    return re.sub(rf"\b({'|'.join(_PARAMETERS)})\b", lambda match: _PARAMETERS[match[0]], remedy)


def _invalid(code: str, name: str, detail: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, code, f"{name}: {detail}", field=name)


def translate(problem: Problem) -> tuple[int, str]:
    """Return remove.bg's status and code for a problem. Codes that remove.bg does not have stay as they are."""
    status = (
        problem.status if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR else _STATUSES.get(problem.status, 400)
    )
    field, code = problem.field or "", problem.code
    if (field, code) in _URL_CODES:
        return status, _URL_CODES[field, code]
    if code != "invalid_option":
        return status, _CODES.get(code, code)
    # Other invalid options are rejected before the job starts; these depend on the images.
    match field:
        case "background" | "options.background_key":
            return status, "failed_to_read_image"
        case "options.roi":
            is_outside = (problem.detail or "").startswith(REGION_EXCEEDS_PICTURE)
            return status, "roi_exceeds_bounds" if is_outside else "roi_region_empty"
    return status, f"invalid_{_parameter(field)}"


def error_response(problem: Problem, request_id: str) -> Response[str]:
    """Return the response to a failed request, in remove.bg's format."""
    status, code = translate(problem)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        detail = f"Request {request_id}"
    else:
        detail = " ".join(text for text in (problem.detail, problem.remedy) if text)
    error = {"title": code.replace("_", " ").capitalize(), "code": code, "detail": detail}
    headers = {**problem.headers, "X-Request-Id": request_id}
    return Response(status, "application/json", json.dumps({"errors": [error]}), headers=headers)


def result_headers(result: JobResult, parameters: Parameters) -> dict[str, str]:
    """Return the response headers that describe a result."""
    sidecar, image = result.sidecar, result.sidecar["image"]
    values = {
        "X-Width": image["width"],
        "X-Height": image["height"],
        "X-Credits-Charged": result.credits,
        **{f"X-Foreground-{name.capitalize()}": value for name, value in _foreground(sidecar).items()},
        **({} if parameters.type_level == "none" else {"X-Type": "other"}),
    }
    return {
        **{name: str(value) for name, value in values.items()},
        **warnings_header([*parameters.warnings, *sidecar["warnings"]]),
    }


def json_result(result: JobResult) -> dict[str, Any]:
    """Return the response body for clients that accept nothing but JSON: the result in base64, or its URL."""
    if result.data is None:
        content = {"result_url": result.url}
    else:
        content = {"result_b64": base64.b64encode(result.data).decode()}
    foreground = {f"foreground_{name}": value for name, value in _foreground(result.sidecar).items()}
    return {"data": {**content, **foreground}}


def account(usage: Usage) -> dict[str, Any]:
    """Return the response body of ``GET /v1.0/account``: the rest of the monthly quota."""
    remaining = max(usage.quota - usage.used, 0)
    return {
        "data": {
            "attributes": {
                "credits": {"total": remaining, "subscription": remaining, "payg": 0, "enterprise": 0},
                "api": {"free_calls": 0, "sizes": "all"},
            }
        }
    }


def _foreground(sidecar: Mapping[str, Any]) -> dict[str, int]:
    box = sidecar["image"]["foreground"] or {}
    return {name: box[name] for name in ("top", "left", "width", "height") if box}


def routes(services: Services) -> APIGatewayHttpRouter:
    """Return a router with remove.bg's routes."""
    router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]

    @router.post("/v1.0/removebg", summary="Process an image (remove.bg)", enable_validation=False)
    def removebg() -> Response[Any]:
        """Accept remove.bg's parameters, and respond with the result; in JSON if the client accepts nothing else."""
        event = router.current_event
        auth = authorize(services, router, Scope.PROCESS)
        parameters = parse_parameters(body.read(event))
        result = run_to_result(services, event, auth.caller, to_process_request(parameters))
        headers = {**result_headers(result, parameters), **auth.rate_limit.headers}
        if _JSON_ONLY.fullmatch(event.headers.get("accept", "")):
            return _json(json_result(result), headers)
        return result.response(headers)

    @router.get("/v1.0/account", summary="Get the balance (remove.bg)", enable_validation=False)
    def balance() -> Response[Any]:
        """Return the credits left this month."""
        auth = authorize(services, router, Scope.READ)
        return _json(account(services.authorizer.usage(auth.caller)), auth.rate_limit.headers)

    return router


def _json(document: Mapping[str, Any], headers: Mapping[str, str]) -> Response[Any]:
    return Response(HTTPStatus.OK.value, "application/json", json.dumps(document), headers=dict(headers))
