"""The API's document, made of its routes. Checked in as docs/reference/openapi.json."""

import json
from collections.abc import Mapping
from typing import Any, Final

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
from pydantic import BaseModel

from functions.api.body import UploadedFile
from functions.api.problems import CONTENT_TYPE
from functions.api.schemas import ProblemDocument

VERSION: Final = "1.0.0"
DESCRIPTION: Final = (
    "Cuts subjects out of photographs. Every route but /health and /ready takes an API key in X-API-Key, or as a "
    "bearer token; under /iam the same routes take requests that are signed with AWS credentials."
)

JSON: Final = "application/json"
FORM: Final = "multipart/form-data"
URLENCODED: Final = "application/x-www-form-urlencoded"

_SCHEMAS: Final = "#/components/schemas/"
_OPEN: Final = "open"
_FILE: Final = {"type": "string", "format": "binary"}

Operation = dict[str, Any]
"""A part of an operation, as the document has it."""


def described(summary: str, answers: Mapping[int, type[BaseModel] | None], *, is_open: bool = False) -> dict[str, Any]:
    """Return what a route says of itself: its summary, the models of its answers, and whether it asks for no key."""
    responses: dict[int, dict[str, Any]] = {}
    for status, model in answers.items():
        responses[status] = {"description": (model and model.__doc__) or "Done."}
        if model:
            responses[status]["content"] = {JSON: {"model": model}}
    return {"summary": summary, "responses": responses, "tags": [_OPEN] if is_open else None}


def takes(
    model: type[BaseModel], *kinds: str, files: tuple[str, ...] = (), required: tuple[str, ...] = ()
) -> Operation:
    """Return what a route takes that reads its body itself.

    Args:
        model: its fields.
        kinds: the body's content types.
        files: those fields that are files in a form and text elsewhere.
        required: those fields that have to be there.
    """
    content = {}
    for kind in kinds:
        schema = _schema(model)
        properties = {
            name: _FILE if kind == FORM and (name in files or _is_file(member)) else member
            for name, member in schema["properties"].items()
            if kind == FORM or not _is_file(member)
        }
        said = {**schema, "properties": properties, "required": list(required), "additionalProperties": False}
        content[kind] = {"schema": said}
    return {"requestBody": {"required": True, "content": content}}


def takes_json(model: type[BaseModel]) -> Operation:
    """Return what a route takes that reads JSON as a model itself."""
    schema = model.model_json_schema(ref_template=_SCHEMAS + "{model}")
    definitions = {model.__name__: schema, **schema.pop("$defs", {})}
    reference = {"$ref": _SCHEMAS + model.__name__, "$defs": definitions}
    return {"requestBody": {"required": True, "content": {JSON: {"schema": reference}}}}


def asks(model: type[BaseModel], **more: str) -> Operation:
    """Return the query that a route takes: a model's fields, and required ones with their descriptions."""
    required = [
        {"name": name, "in": "query", "required": True, "description": text, "schema": {"type": "string"}}
        for name, text in more.items()
    ]
    fields = _schema(model)["properties"].items()
    return {"parameters": [*required, *({"name": name, "in": "query", "schema": schema} for name, schema in fields)]}


def answers(*kinds: str, description: str, error: str = CONTENT_TYPE, schema: Any = None) -> Operation:
    """Return what a route answers whose result is a file, or another document than ours.

    Args:
        kinds: content types of the result.
        description: of the result.
        error: content type of whatever else is answered.
        schema: of that; None: a problem's.
    """
    schema = schema or {"$ref": _SCHEMAS + ProblemDocument.__name__}
    return {
        "responses": {
            "200": {"description": description, "content": {kind: {"schema": {}} for kind in kinds}},
            "default": {"description": "What went wrong.", "content": {error: {"schema": schema}}},
        }
    }


def document(app: APIGatewayHttpResolver, told: Mapping[str, Operation]) -> dict[str, Any]:
    """Return the OpenAPI document.

    Args:
        app: with all routes.
        told: what routes do not say of themselves, by ``POST /path``.
    """
    schema: dict[str, Any] = json.loads(
        app.get_openapi_json_schema(
            title="Precision Background Remover", version=VERSION, description=DESCRIPTION, openapi_version="3.1.0"
        )
    )
    schemas = schema["components"]["schemas"]
    schema["components"]["securitySchemes"] = {
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "bearer": {"type": "http", "scheme": "bearer"},
    }
    problem = answers(description="")["responses"]["default"]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            operation["responses"].pop("422", None)  # of Powertools; ours is a problem
            operation["responses"].get("204", {}).pop("content", None)
            operation["responses"].setdefault("default", problem)
            operation["security"] = [] if operation.pop("tags", None) == [_OPEN] else [{"key": []}, {"bearer": []}]
            operation |= told.get(f"{method.upper()} {path}", {})
            for body in operation.get("requestBody", {}).get("content", {}).values():
                schemas |= body["schema"].pop("$defs", {})
    for unused in ("HTTPValidationError", "ResponseValidationError", "ValidationError", UploadedFile.__name__):
        schemas.pop(unused, None)
    return schema


def _is_file(schema: Mapping[str, Any]) -> bool:
    return schema.get("$ref") == _SCHEMAS + UploadedFile.__name__


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's schema, no member of it nullable: a form has no null."""
    schema = model.model_json_schema(ref_template=_SCHEMAS + "{model}")
    for name, member in schema["properties"].items():
        if member.get("default", True) is None:
            del member["default"]
        if "anyOf" in member:
            kinds = [kind for kind in member.pop("anyOf") if kind != {"type": "null"}]
            schema["properties"][name] = {**(kinds[0] if len(kinds) == 1 else {"anyOf": kinds}), **member}
    return schema
