"""Parse request bodies: JSON, multipart and urlencoded bodies become the same fields and files."""

import base64
import binascii
import codecs
import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2
from multipart import MultipartError, MultipartParser, MultipartPart, parse_options_header
from pydantic import BaseModel, ValidationError

from functions.api.problems import Problem, problem_from_validation

Model = TypeVar("Model", bound=BaseModel)

_MAX_BYTES: Final = 10 * 1024 * 1024
"""API Gateway's limit. The whole body is in memory before it is parsed."""

_MAX_FIELDS: Final = 64
_CHARSETS: Final = {"utf-8", "ascii", "iso8859-1", "cp1252"}
"""Accepted charsets of form fields. Some of Python's other codecs take a minute to decode a megabyte."""

_MAX_NUMBER_CHARS: Final = 100
_NUMBER: Final = re.compile(r"\s*[-+]?[0-9._]+([eE][-+]?[0-9_]+)?\s*")

_REMEDY: Final = "Send application/json, multipart/form-data or application/x-www-form-urlencoded."


@dataclass(frozen=True)
class UploadedFile:
    """A file of a multipart body."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Body:
    """A parsed body. Values of ``fields`` are text; those of a JSON body have JSON's types."""

    fields: dict[str, Any] = field(default_factory=dict)
    files: dict[str, UploadedFile] = field(default_factory=dict)


def read(event: APIGatewayProxyEventV2) -> Body:
    """Parse a request's body by its content type.

    Raises:
        Problem: ``unsupported_media_type`` or ``invalid_body``.
    """
    content_type, options = parse_options_header(event.headers.get("content-type", ""))
    data = raw(event)
    match content_type:
        case "application/json":
            return Body(_json_object(data))
        case "application/x-www-form-urlencoded":
            return Body(_unique(_urlencoded(data)))
        case "multipart/form-data":
            return _multipart(data, options.get("boundary", ""))
    raise _unsupported(content_type, _REMEDY)


def read_json(event: APIGatewayProxyEventV2, model: type[Model]) -> Model:
    """Parse a JSON body as a model.

    Raises:
        Problem: ``unsupported_media_type``, ``invalid_body`` or ``invalid_request``.
    """
    content_type, _ = parse_options_header(event.headers.get("content-type", ""))
    if content_type != "application/json":
        raise _unsupported(content_type, "Send application/json.")
    try:
        return model.model_validate(_json_object(raw(event)))
    except ValidationError as error:
        first = error.errors()[0]
        raise problem_from_validation(first, first["loc"], model) from error


def raw(event: APIGatewayProxyEventV2) -> bytes:
    """Return the bytes of a request's body."""
    text = event.body or ""
    return base64.b64decode(text) if event.is_base64_encoded else text.encode()


def from_base64(name: str, text: Any) -> bytes:
    """Return the bytes of a field in base64. A data URL is accepted, too.

    Raises:
        Problem: ``invalid_body``: the text is not base64.
    """
    try:
        return base64.b64decode(text.rpartition(",")[2] if text.startswith("data:") else text, validate=True)
    except (AttributeError, binascii.Error, ValueError):
        raise _invalid("The field is not valid base64", name, text, "Send the file's bytes in base64.") from None


def check_number(name: str, value: Any) -> None:
    """Reject a number of very many digits, which would be rounded.

    Raises:
        Problem: ``invalid_body``.
    """
    if isinstance(value, str) and len(value) > _MAX_NUMBER_CHARS and _NUMBER.fullmatch(value):
        remedy = f"Send at most {_MAX_NUMBER_CHARS} characters."
        raise _invalid(f"The number has {len(value)} characters", name, value, remedy)


def _json_object(data: bytes) -> dict[str, Any]:
    def number(text: str) -> float:
        check_number("body", text)
        return float(text) if set(text) & set(".eE") else int(text)

    def constant(_name: str) -> None:
        raise ValueError("a number is not finite")

    try:
        value = json.loads(
            data, parse_int=number, parse_float=number, parse_constant=constant, object_pairs_hook=_unique
        )
    except (ValueError, RecursionError) as error:
        raise _invalid(f"The body is not valid JSON: {error}", "body", None, _REMEDY) from None
    if not isinstance(value, dict):
        raise _invalid("The body is not a JSON object", "body", type(value).__name__, "Send a JSON object.")
    return value


def _urlencoded(data: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(data.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise _invalid(f"The body is not valid urlencoded data: {error}", "body", None, _REMEDY) from None


def _multipart(data: bytes, boundary: str) -> Body:
    if not boundary:
        raise _invalid(
            "The multipart body has no boundary",
            "content-type",
            None,
            "Let the HTTP client set the Content-Type header.",
        )
    parser = MultipartParser(
        io.BytesIO(data), boundary, len(data), part_limit=_MAX_FIELDS, spool_limit=_MAX_BYTES, memory_limit=_MAX_BYTES
    )
    try:
        parts = list(parser)
        fields = _unique((part.name, _text_of(part)) for part in parts if part.filename is None)
    except (MultipartError, UnicodeDecodeError, LookupError) as error:
        raise _invalid(f"The multipart body cannot be parsed: {error}", "body", None, _REMEDY) from None
    files = _unique((part.name, UploadedFile(part.filename, part.raw)) for part in parts if part.filename is not None)
    return Body(fields, files)


def _text_of(part: MultipartPart) -> str:
    if codecs.lookup(part.charset).name not in _CHARSETS:
        raise LookupError(f"charset {part.charset}")
    text: str = part.value
    return text


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs as a dict; duplicate names are an error."""
    values: dict[str, Any] = {}
    for name, value in pairs:
        check_number(name, value)
        if name in values:
            raise _invalid("The field is repeated", name, None, "Send it once.")
        values[name] = value
    return values


def _invalid(message: str, field_name: str, value: Any, remedy: str) -> Problem:
    return Problem(400, "invalid_body", f"{message}.", field=field_name, value=value, remedy=remedy)


def _unsupported(content_type: str, remedy: str) -> Problem:
    detail = "The content type is not supported."
    return Problem(415, "unsupported_media_type", detail, field="content-type", value=content_type, remedy=remedy)
