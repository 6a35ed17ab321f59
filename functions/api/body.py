"""A request's body: JSON, multipart or urlencoded, all to the same fields and files."""

import base64
import binascii
import codecs
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2
from multipart import MultipartError, MultipartParser, MultipartPart, parse_options_header
from pydantic import BaseModel, ValidationError

from functions.api.problems import Problem, of_validation

Model = TypeVar("Model", bound=BaseModel)

_MAX_BYTES: Final = 10 * 1024 * 1024
"""What API Gateway takes. All of it is in memory by the time that it is parsed."""

_MAX_FIELDS: Final = 64
_CHARSETS: Final = {"utf-8", "ascii", "iso8859-1", "cp1252"}
"""What clients write forms in. Python knows others that take it a minute for a megabyte."""

_REMEDY: Final = "Send application/json, multipart/form-data or application/x-www-form-urlencoded."


@dataclass(frozen=True)
class UploadedFile:
    """A file in a body."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Body:
    """What a body says; ``fields`` are text, but for those of JSON, which have JSON's types."""

    fields: dict[str, Any] = field(default_factory=dict)
    files: dict[str, UploadedFile] = field(default_factory=dict)


def read(event: APIGatewayProxyEventV2) -> Body:
    """Read the body of a request, by its content type.

    Raises:
        Problem: ``unsupported_media_type`` or ``invalid_body``.
    """
    content_type, options = parse_options_header(event.headers.get("content-type", ""))
    data = raw(event)
    match content_type:
        case "application/json":
            return Body(_json_object(data))
        case "application/x-www-form-urlencoded":
            return Body(_once(_urlencoded(data)))
        case "multipart/form-data":
            return _multipart(data, options.get("boundary", ""))
    raise _unsupported(content_type, _REMEDY)


def read_json(event: APIGatewayProxyEventV2, model: type[Model]) -> Model:
    """Read the body of a request that is to be JSON, as a model.

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
        raise of_validation(first, first["loc"]) from error


def raw(event: APIGatewayProxyEventV2) -> bytes:
    """Return a body's bytes."""
    text = event.body or ""
    return base64.b64decode(text) if event.is_base64_encoded else text.encode()


def from_base64(name: str, text: Any) -> bytes:
    """Return the bytes that a field holds in base64, with or without a data URL's head.

    Raises:
        Problem: ``invalid_body``: it holds none.
    """
    try:
        return base64.b64decode(text.rpartition(",")[2] if text.startswith("data:") else text, validate=True)
    except (AttributeError, binascii.Error, ValueError):
        raise _invalid("The field holds no base64", name, text, "Send the file's bytes in base64.") from None


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"The body is no JSON: {error}", "body", None, _REMEDY) from None
    if not isinstance(value, dict):
        raise _invalid("The body is no JSON object", "body", type(value).__name__, "Send an object with named members.")
    return value


def _urlencoded(data: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(data.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise _invalid(f"The body is not urlencoded: {error}", "body", None, _REMEDY) from None


def _multipart(data: bytes, boundary: str) -> Body:
    if not boundary:
        raise _invalid(
            "The multipart body has no boundary", "content-type", None, "Let the HTTP client write the header."
        )
    parser = MultipartParser(
        io.BytesIO(data), boundary, len(data), part_limit=_MAX_FIELDS, spool_limit=_MAX_BYTES, memory_limit=_MAX_BYTES
    )
    try:
        parts = list(parser)
        fields = _once((part.name, _text_of(part)) for part in parts if part.filename is None)
    except (MultipartError, UnicodeDecodeError, LookupError) as error:
        raise _invalid(f"The multipart body cannot be read: {error}", "body", None, _REMEDY) from None
    files = _once((part.name, UploadedFile(part.filename, part.raw)) for part in parts if part.filename is not None)
    return Body(fields, files)


def _text_of(part: MultipartPart) -> str:
    if codecs.lookup(part.charset).name not in _CHARSETS:
        raise LookupError(f"charset {part.charset}")
    text: str = part.value
    return text


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return what each name stands for, where no name comes twice."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _invalid("The field is given twice", name, None, "Give it once.")
        found[name] = value
    return found


def _invalid(what: str, field_name: str, value: Any, remedy: str) -> Problem:
    return Problem(400, "invalid_body", f"{what}.", field=field_name, value=value, remedy=remedy)


def _unsupported(content_type: str, remedy: str) -> Problem:
    what = "The body is of a kind that is not read here."
    return Problem(415, "unsupported_media_type", what, field="content-type", value=content_type, remedy=remedy)
