"""Generate the OpenAPI document from the routes. It is checked in as docs/reference/openapi.json."""

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
from aws_lambda_powertools.event_handler.openapi import swagger_ui
from aws_lambda_powertools.event_handler.openapi.swagger_ui import generate_swagger_html
from pydantic import BaseModel

from functions.api.body import UploadedFile
from functions.api.problems import CONTENT_TYPE
from functions.api.schemas import ProblemDocument

VERSION: Final = "1.0.0"
DESCRIPTION: Final = (
    "Removes the background of images. All routes except /health, /ready, /openapi.json and /docs require an API key, "
    "in the header X-API-Key or as a bearer token. The same routes under /iam accept requests signed with AWS "
    "credentials."
)

JSON: Final = "application/json"
FORM: Final = "multipart/form-data"
URLENCODED: Final = "application/x-www-form-urlencoded"

_SCHEMAS: Final = "#/components/schemas/"
_OPEN: Final = "open"
_FILE: Final = {"type": "string", "format": "binary"}

Operation = dict[str, Any]
"""An OpenAPI operation object, or some members of one."""


def describe(summary: str, models: Mapping[int, type[BaseModel] | None], *, is_open: bool = False) -> dict[str, Any]:
    """Return the keyword arguments that document a route.

    Args:
        summary: one phrase.
        models: the response body's model by status; None for an empty body.
        is_open: whether the route needs no API key.
    """
    responses: dict[int, dict[str, Any]] = {}
    for status, model in models.items():
        responses[status] = {"description": (model and model.__doc__) or "Done."}
        if model:
            responses[status]["content"] = {JSON: {"model": model}}
    return {"summary": summary, "responses": responses, "tags": [_OPEN] if is_open else None}


def request_body(
    model: type[BaseModel], *content_types: str, files: tuple[str, ...] = (), required: tuple[str, ...] = ()
) -> Operation:
    """Return the request body of a route that parses its body itself.

    Args:
        model: the body's fields.
        content_types: accepted content types.
        files: fields that are files in a form, and text elsewhere.
        required: required fields.
    """
    content = {}
    for content_type in content_types:
        schema = _schema(model)
        properties = {
            name: _FILE if content_type == FORM and (name in files or _is_file(member)) else member
            for name, member in schema["properties"].items()
            if content_type == FORM or not _is_file(member)
        }
        schema |= {"properties": properties, "required": list(required), "additionalProperties": False}
        content[content_type] = {"schema": schema}
    return {"requestBody": {"required": True, "content": content}}


def json_body(model: type[BaseModel]) -> Operation:
    """Return the request body of a route that parses JSON as a model itself."""
    schema = model.model_json_schema(ref_template=_SCHEMAS + "{model}")
    definitions = {model.__name__: schema, **schema.pop("$defs", {})}
    reference = {"$ref": _SCHEMAS + model.__name__, "$defs": definitions}
    return {"requestBody": {"required": True, "content": {JSON: {"schema": reference}}}}


def query_parameters(model: type[BaseModel], **required: str) -> Operation:
    """Return a route's query parameters: required ones with their descriptions, and a model's fields."""
    parameters = [
        {"name": name, "in": "query", "required": True, "description": text, "schema": {"type": "string"}}
        for name, text in required.items()
    ]
    fields = _schema(model)["properties"].items()
    return {"parameters": [*parameters, *({"name": name, "in": "query", "schema": schema} for name, schema in fields)]}


def file_responses(*content_types: str, description: str, error: str = CONTENT_TYPE, schema: Any = None) -> Operation:
    """Return the responses of a route whose response body has no model, such as a file.

    Args:
        content_types: content types of the result.
        description: description of the result.
        error: content type of error responses.
        schema: schema of error responses; None: a problem document.
    """
    schema = schema or {"$ref": _SCHEMAS + ProblemDocument.__name__}
    return {
        "responses": {
            "200": {"description": description, "content": {kind: {"schema": {}} for kind in content_types}},
            "default": {"description": "An error.", "content": {error: {"schema": schema}}},
        }
    }


def document(app: APIGatewayHttpResolver, operations: Mapping[str, Operation]) -> dict[str, Any]:
    """Return the OpenAPI document.

    Args:
        app: the resolver with all routes.
        operations: members of operations that Powertools cannot derive, by method and path, e.g. ``POST /jobs``.
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
    problem = file_responses(description="")["responses"]["default"]
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            operation["responses"].pop("422", None)  # Powertools' own error format
            operation["responses"].get("204", {}).pop("content", None)
            operation["responses"].setdefault("default", problem)
            operation["security"] = [] if operation.pop("tags", None) == [_OPEN] else [{"key": []}, {"bearer": []}]
            operation |= operations.get(f"{method.upper()} {path}", {})
            for body in operation.get("requestBody", {}).get("content", {}).values():
                schemas |= body["schema"].pop("$defs", {})
    for unused in ("HTTPValidationError", "ResponseValidationError", "ValidationError", UploadedFile.__name__):
        schemas.pop(unused, None)
    return schema


def page(document: str) -> str:
    """Return an HTML page that shows an OpenAPI document with Swagger UI, which Powertools brings along.

    Args:
        document: the document as JSON.
    """
    files = resources.files(swagger_ui)
    return generate_swagger_html(
        spec=document.replace("</", "<\\/"),  # must not end the script that contains it
        swagger_js=(files / "swagger-ui-bundle.min.js").read_text(),
        swagger_css=(files / "swagger-ui.min.css").read_text(),
        swagger_base_url="",
        oauth2_config=None,
    )


def _is_file(schema: Mapping[str, Any]) -> bool:
    return schema.get("$ref") == _SCHEMAS + UploadedFile.__name__


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's schema without nullable members: a form cannot express null."""
    schema = model.model_json_schema(ref_template=_SCHEMAS + "{model}")
    for name, member in schema["properties"].items():
        if member.get("default", True) is None:
            del member["default"]
        if "anyOf" in member:
            kinds = [kind for kind in member.pop("anyOf") if kind != {"type": "null"}]
            schema["properties"][name] = {**(kinds[0] if len(kinds) == 1 else {"anyOf": kinds}), **member}
    return schema
