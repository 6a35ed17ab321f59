"""Write the JSON Schemas of the documents that a stack writes: ``python -m functions.contracts docs/reference``."""

import json
import sys
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from functions.contracts.bulk import BulkSummary
from functions.contracts.failure_report import FailureReport
from functions.contracts.result import Result

SCHEMAS: Final[dict[str, type[BaseModel]]] = {
    "result.schema.json": Result,
    "failure-report.schema.json": FailureReport,
    "bulk-summary.schema.json": BulkSummary,
}


class _WrittenDocument(GenerateJsonSchema):
    """A document contains every field, also those with a default."""

    def field_is_required(self, field: Any, total: bool) -> bool:
        return True


def json_schema(model: type[BaseModel]) -> str:
    """Return the JSON Schema of the documents that a model writes, as indented text."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **model.model_json_schema(mode="serialization", schema_generator=_WrittenDocument),
    }
    return json.dumps(schema, indent=2) + "\n"


def main(directory: Path) -> None:
    """Write each schema into a directory."""
    for name, model in SCHEMAS.items():
        (directory / name).write_text(json_schema(model))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
