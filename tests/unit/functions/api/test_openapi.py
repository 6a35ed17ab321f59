"""The OpenAPI document."""

import json
from typing import Any

from functions.api.resolver import openapi_document
from tests.conftest import ROOT

DOCUMENT = openapi_document()
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
}


def references(node: Any) -> set[str]:
    if isinstance(node, list):
        return {found for item in node for found in references(item)}
    if not isinstance(node, dict):
        return set()
    own = {node["$ref"]} if "$ref" in node else set()
    return own | {found for item in node.values() for found in references(item)}


def test_checked_in_document_is_current() -> None:
    assert json.loads((ROOT / "docs/reference/openapi.json").read_text()) == DOCUMENT, "run make openapi"


def test_all_references_resolve() -> None:
    known = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert references(DOCUMENT) <= known


def test_all_routes_except_two_require_a_key() -> None:
    assert {name for name, operation in OPERATIONS.items() if not operation["security"]} == {
        "GET /health",
        "GET /ready",
    }


def test_all_post_routes_document_their_body() -> None:
    silent = {name for name, operation in OPERATIONS.items() if "requestBody" not in operation}
    assert {name for name in silent if name.startswith("POST")} == set()
