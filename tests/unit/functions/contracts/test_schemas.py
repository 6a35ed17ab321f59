import json

import pytest

from functions.contracts.__main__ import SCHEMAS, json_schema
from tests.conftest import ROOT


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_published_schema_equals_the_model(name: str) -> None:
    published = (ROOT / "docs/reference" / name).read_text()
    assert published == json_schema(SCHEMAS[name]), "run: python -m functions.contracts docs/reference"


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field_of_the_documents_is_described_and_always_present(name: str) -> None:
    schema = json.loads(json_schema(SCHEMAS[name]))
    for model in (schema, *(model for model in schema["$defs"].values() if "properties" in model)):
        assert set(model["required"]) == set(model["properties"])
        assert all("description" in field for field in model["properties"].values()), model["title"]
