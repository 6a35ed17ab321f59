"""remove.bg's API: its parameters, headers and error codes, for this project's jobs.

Names, defaults and limits are those of remove.bg's own description. A parameter that asks for what the pipeline does
not do is refused by its name and never passed over, and so is one that remove.bg does not have.
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
from functions.api.delivery import Delivery, admit, answers, deliver, sentence, warned
from functions.api.problems import Problem
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

CREDITS: Final = 1
"""What a picture is charged, whatever its size."""

_MEGAPIXELS: Final = {"preview": 0.25, "small": 0.25, "regular": 0.25, "medium": 1.5, "hd": 4.0, "50MP": 50.0}
_MEGAPIXELS_OF_OTHERS: Final = 25.0  # full, which is also called 4k, and auto
_MEGAPIXELS_OF_PNG: Final = 10.0  # at most, of any size

_FORMATS: Final = {"png": "png", "jpg": "jpeg", "webp": "webp", "zip": "zip"}

_PARAMETERS: Final = {
    "output": "channels",
    "max_megapixels": "size",
    "background_color": "bg_color",
}
"""What remove.bg calls those options that have another name there."""

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
"""What remove.bg calls those problems that have another name there."""

_CODES_OF_URLS: Final = {
    ("image_url", "url_refused"): "invalid_image_url",
    ("image_url", "download_failed"): "failed_image_download",
    ("background_url", "url_refused"): "invalid_bg_image_url",
    ("background_url", "download_failed"): "failed_bg_download",
}

_JSON_ALONE: Final = re.compile(r"\s*application/json\s*(;[^,]*)?")
"""An ``Accept`` header that asks for JSON. HTTP libraries name it among others by default, and want the picture."""

_STATUSES: Final = {401: 403, 402: 402, 403: 403, 404: 404, 429: 429}
"""The statuses of callers' errors; those that are not here are 400 with remove.bg."""


def _file_address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("this is no URL of a file")
    return url


def _visible_color(color: str) -> str | None:
    """Return ``#rrggbb``, or ``#rrggbbaa`` of a translucent colour, or None of one that cannot be seen."""
    digits = color.removeprefix("#").lower()
    if re.fullmatch(r"[0-9a-f]{3,4}|[0-9a-f]{6}|[0-9a-f]{8}", digits):
        digits = digits if len(digits) >= len("rrggbb") else "".join(2 * digit for digit in digits)
        return None if digits[6:] == "00" else "#" + digits[:6] + digits[6:].replace("ff", "")
    if not color.isalpha():
        raise ValueError("this is neither 3, 4, 6 or 8 hexadecimal digits nor the name of a colour")
    return "#{:02x}{:02x}{:02x}".format(*ImageColor.getrgb(color))


def _spaced(text: str) -> str:
    """Return values that stand apart by one space each, as options have them."""
    return " ".join(text.replace(",", " ").split())


def _with_units(margins: str) -> str:
    """Return margins of which each has its unit: a bare number counts pixels."""
    return re.sub(r"(\d)(?= |$)", r"\1px", _spaced(margins))


def _only(wanted: bool, reason: str) -> AfterValidator:
    def check(value: bool) -> bool:
        if value is not wanted:
            raise ValueError(reason)
        return value

    return AfterValidator(check)


FileUrl = Annotated[str, AfterValidator(_file_address)]
Level = Annotated[
    Literal["none", "1", "2", "latest"], BeforeValidator(lambda level: str(level) if type(level) is int else level)
]


class Parameters(BaseModel):
    """What ``POST /v1.0/removebg`` is asked for, by remove.bg's names and with its defaults."""

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
    add_shadow: Annotated[bool, _only(False, "shadows are not drawn here")] = False
    shadow_type: Literal["none"] = "none"
    shadow_opacity: Annotated[float, Field(ge=0, le=100)] = 100
    semitransparency: Annotated[bool, _only(True, "what light passes through cannot be made opaque here")] = True

    @property
    def options(self) -> dict[str, Any]:
        """Those of :class:`core.options.Options` that were asked for."""
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
        """The picture behind the subject, or its URL."""
        return self.bg_image_file.data if self.bg_image_file else self.bg_image_url

    @property
    def warnings(self) -> list[str]:
        """What was asked for and makes no difference."""
        return [] if self.type == "auto" else [f"type={self.type} has no effect, subjects of any type are looked for"]

    @property
    def _format(self) -> str:
        if self.format != "auto":
            return _FORMATS[self.format]
        is_opaque = self.background is not None or len(self.bg_color or "") == len("#rrggbb")
        return "jpeg" if is_opaque else "png"

    @property
    def _max_megapixels(self) -> float:
        most = _MEGAPIXELS.get(self.size, _MEGAPIXELS_OF_OTHERS)
        return min(most, _MEGAPIXELS_OF_PNG) if self._format == "png" else most


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
_PICTURES: Final = ("image/png", "image/jpeg", "image/webp", "application/zip", openapi.JSON)


def told() -> dict[str, openapi.Operation]:
    """Return what the document says of the routes that they cannot say of themselves."""
    return {
        "POST /v1.0/removebg": {
            **openapi.takes(Parameters, openapi.FORM, openapi.URLENCODED, openapi.JSON),
            **answers(*_PICTURES, error=openapi.JSON, schema=_ERRORS),
        },
        "GET /v1.0/account": openapi.answers(
            openapi.JSON, description="The balance.", error=openapi.JSON, schema=_ERRORS
        ),
    }


def parameters(said: body.Body) -> Parameters:
    """Return what a body asks for. A field that is empty or null counts as one that is not there.

    Raises:
        Problem: ``unknown_parameter``, or ``invalid_`` and the parameter's name.
    """
    given = {name: value for name, value in (said.fields | said.files).items() if value not in (None, "")}
    try:
        return Parameters.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
    name = str(first["loc"][0])[:MAX_SHOWN_CHARS]
    if first["type"] == "extra_forbidden":
        raise _refused("unknown_parameter", name, f"The parameters are: {', '.join(Parameters.model_fields)}.")
    raise _refused(f"invalid_{name}", name, sentence(first["msg"]))


def order(asked: Parameters) -> ProcessRequest:
    """Return the order that parameters make.

    Raises:
        Problem: there is no picture, or more than one, or more than one background, or a value is not allowed.
    """
    sources = [asked.image_file, asked.image_file_b64, asked.image_url]
    if (given := len(sources) - sources.count(None)) != 1:
        code = "multiple_sources" if given else "missing_source"
        raise _refused(code, "image_file", "Give one of image_file, image_file_b64 and image_url.")
    backgrounds = [asked.bg_color, asked.bg_image_file, asked.bg_image_url]
    if len(backgrounds) - backgrounds.count(None) > 1:
        raise _refused(
            "multiple_bg_sources", "bg_image_file", "Give one of bg_color, bg_image_file and bg_image_url, or none."
        )
    _check(asked)
    return ProcessRequest(
        image=_image(asked),
        name=asked.image_file.name if asked.image_file else None,
        options=asked.options,
        background=asked.background,
    )


def _check(asked: Parameters) -> None:
    # The key stands for the background, which has one only when it is stored.
    with_background = {"background_key": "backgrounds/"} if asked.background is not None else {}
    try:
        Options.parse({**asked.options, **with_background})
    except InvalidOptionsError as error:
        name = _parameter(error.field)
        raise _refused(f"invalid_{name}", name, f"{error.message}.") from None


def _image(asked: Parameters) -> bytes | str:
    if asked.image_file:
        return asked.image_file.data
    if asked.image_url:
        return asked.image_url
    try:
        return body.from_base64("image_file_b64", "".join((asked.image_file_b64 or "").split()))
    except Problem as problem:
        raise _refused("failed_to_read_image", "image_file_b64", problem.detail or "") from None


def _parameter(field: str) -> str:
    name = field.removeprefix("options.")
    return _PARAMETERS.get(name, name)


def _refused(code: str, name: str, detail: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, code, f"{name}: {detail}", field=name)


def translated(problem: Problem) -> tuple[int, str]:
    """Return the status and the code that remove.bg has for a problem; those of ours that it has none for stay."""
    status = (
        problem.status if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR else _STATUSES.get(problem.status, 400)
    )
    field, code = problem.field or "", problem.code
    if (field, code) in _CODES_OF_URLS:
        return status, _CODES_OF_URLS[field, code]
    if code != "invalid_option":
        return status, _CODES.get(code, code)
    # What an order's words could tell was refused before there was a job. What is left is in the pictures.
    match field:
        case "background" | "options.background_key":
            return status, "failed_to_read_image"
        case "options.roi":
            is_outside = (problem.detail or "").startswith(REGION_EXCEEDS_PICTURE)
            return status, "roi_exceeds_bounds" if is_outside else "roi_region_empty"
    return status, f"invalid_{_parameter(field)}"


def refusal(problem: Problem, request_id: str) -> Response[str]:
    """Return the answer to a request that failed."""
    status, code = translated(problem)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        detail = f"Request {request_id}"
    else:
        detail = " ".join(text for text in (problem.detail, problem.remedy) if text)
    error = {"title": code.replace("_", " ").capitalize(), "code": code, "detail": detail}
    headers = {**problem.headers, "X-Request-Id": request_id}
    return Response(status, "application/json", json.dumps({"errors": [error]}), headers=headers)


def headers(sidecar: Mapping[str, Any], asked: Parameters) -> dict[str, str]:
    """Return what the headers of an answer tell of the picture in it."""
    image = sidecar["image"]
    told = {
        "X-Width": image["width"],
        "X-Height": image["height"],
        "X-Credits-Charged": CREDITS,
        **{f"X-Foreground-{name.capitalize()}": value for name, value in _foreground(sidecar).items()},
        **({} if asked.type_level == "none" else {"X-Type": "other"}),
    }
    return {
        **{name: str(value) for name, value in told.items()},
        **warned([*asked.warnings, *sidecar["warnings"]]),
    }


def document(delivery: Delivery) -> dict[str, Any]:
    """Return the answer to who accepts JSON and nothing else: with the result, or where it is to be had."""
    if delivery.result is None:
        place = {"result_url": delivery.url}
    else:
        place = {"result_b64": base64.b64encode(delivery.result).decode()}
    return {"data": {**place, **{f"foreground_{name}": value for name, value in _foreground(delivery.sidecar).items()}}}


def account(usage: Usage) -> dict[str, Any]:
    """Return the balance of a month: a credit is a picture."""
    left = max(usage.quota - usage.used, 0)
    return {
        "data": {
            "attributes": {
                "credits": {"total": left, "subscription": left, "payg": 0, "enterprise": 0},
                "api": {"free_calls": 0, "sizes": "all"},
            }
        }
    }


def _foreground(sidecar: Mapping[str, Any]) -> dict[str, int]:
    box = sidecar["image"]["foreground"] or {}
    return {name: box[name] for name in ("top", "left", "width", "height") if box}


def routes(services: Services) -> APIGatewayHttpRouter:
    """Return remove.bg's routes."""
    router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]

    @router.post("/v1.0/removebg", summary="Cut a picture out, as remove.bg does", enable_validation=False)
    def removebg() -> Response[Any]:
        """Take remove.bg's parameters, and answer with the picture, or in JSON if nothing else is accepted."""
        event = router.current_event
        admission = admit(services, router, Scope.PROCESS)
        asked = parameters(body.read(event))
        delivery = deliver(services, event, admission.caller, order(asked))
        told = {**headers(delivery.sidecar, asked), **admission.rate.headers}
        if _JSON_ALONE.fullmatch(event.headers.get("accept", "")):
            return _json(document(delivery), told)
        return delivery.picture(told)

    @router.get("/v1.0/account", summary="Tell the balance, as remove.bg does", enable_validation=False)
    def balance() -> Response[Any]:
        """Tell how many pictures are left this month; a credit is a picture."""
        admission = admit(services, router, Scope.READ)
        return _json(account(services.authorizer.usage(admission.caller)), admission.rate.headers)

    return router


def _json(answer: Mapping[str, Any], headers: Mapping[str, str]) -> Response[Any]:
    return Response(HTTPStatus.OK.value, "application/json", json.dumps(answer), headers=dict(headers))
