"""The API's document, made of its routes. Checked in as docs/openapi.json."""

import json
from collections.abc import Mapping
from typing import Any, Final

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
from pydantic import BaseModel

from core.options import Options
from functions.api.models import ProblemDocument
from functions.api.problems import CONTENT_TYPE

VERSION: Final = "1.0.0"
DESCRIPTION: Final = (
    "Cuts subjects out of photographs. Every route but /health and /ready takes an API key in X-API-Key, or as a "
    "bearer token; under /iam the same routes take requests that are signed with AWS credentials."
)
_REFERENCE: Final = "#/components/schemas/"
_OPEN: Final = "open"
_FILE: Final = {"type": "string", "format": "binary"}


def described(summary: str, answers: Mapping[int, type[BaseModel] | None], *, is_open: bool = False) -> dict[str, Any]:
    """Return what a route says of itself: its summary, the models of its answers, and whether it asks for no key."""
    responses = {
        status: {
            "description": (model.__doc__ or "").partition("\n")[0],
            "content": {"application/json": {"model": model}},
        }
        if model
        else {"description": "Done."}
        for status, model in answers.items()
    }
    return {"summary": summary, "responses": responses, "tags": [_OPEN] if is_open else None}


def document(app: APIGatewayHttpResolver, bodies: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the OpenAPI document.

    Args:
        app: with all routes.
        bodies: what those routes take that read their body themselves: ``requestBody`` by ``POST /path``.
    """
    schema: dict[str, Any] = json.loads(
        app.get_openapi_json_schema(
            title="Precision Background Remover", version=VERSION, description=DESCRIPTION, openapi_version="3.1.0"
        )
    )
    schemas = schema["components"]["schemas"]
    schemas |= {ProblemDocument.__name__: ProblemDocument.model_json_schema(mode="serialization")}
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schema["components"]["securitySchemes"] = {
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "bearer": {"type": "http", "scheme": "bearer"},
    }
    problem = {
        "description": "What went wrong.",
        "content": {CONTENT_TYPE: {"schema": {"$ref": _REFERENCE + ProblemDocument.__name__}}},
    }
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            operation["responses"].pop("422", None)
            operation["responses"].setdefault("default", problem)
            operation["security"] = [] if operation.pop("tags", None) == [_OPEN] else [{"key": []}, {"bearer": []}]
            if body := bodies.get(f"{method.upper()} {path}"):
                operation["requestBody"] = body
    return schema


def process_body() -> dict[str, Any]:
    """Return what POST /process takes."""
    options = Options.model_json_schema()
    picture = {
        "image": {"type": "string", "contentEncoding": "base64", "description": "the picture's file; or image_url"},
        "image_url": {"type": "string", "format": "uri", "description": "where the picture is fetched from"},
        "background": {"type": "string", "contentEncoding": "base64", "description": "a picture to put the subject on"},
        "background_url": {"type": "string", "format": "uri"},
        "name": {"type": "string", "description": "the file's name, which the result is named after"},
        "delivery": {
            "enum": ["inline", "url"],
            "default": "inline",
            "description": "url: a URL even of a small result",
        },
        "webhook_url": {"type": "string", "format": "uri", "description": "where to post how the job has ended"},
    }
    return {
        "required": True,
        "content": {
            "application/json": {"schema": _object(picture, options)},
            "multipart/form-data": {"schema": _object({**picture, "image": _FILE, "background": _FILE}, options)},
        },
    }


def _object(members: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**members, **options["properties"]},
        "$defs": options.get("$defs", {}),
        "additionalProperties": False,
    }
