"""Write the JSON Schemas of the result and the failure report: ``python -m functions.contracts docs/reference``."""

import json
import sys
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from functions.contracts.failure_report import FailureReport
from functions.contracts.result import Result

SCHEMAS: Final[dict[str, type[BaseModel]]] = {
    "result.schema.json": Result,
    "failure-report.schema.json": FailureReport,
}


def json_schema(model: type[BaseModel]) -> str:
    """Return the JSON Schema of the documents that a model writes, as indented text."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **model.model_json_schema(mode="serialization"),
    }
    return json.dumps(schema, indent=2) + "\n"


def main(directory: Path) -> None:
    """Write each schema into a directory."""
    for name, model in SCHEMAS.items():
        (directory / name).write_text(json_schema(model))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
