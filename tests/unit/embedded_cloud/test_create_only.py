"""The table of properties that need a replacement is that of CloudFormation's schemas."""

from pathlib import Path

import pytest
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER  # type: ignore[import-untyped]

from embedded_cloud.deploy import translate
from embedded_cloud.moto_patches.create_only import CREATE_ONLY
from tests.conftest import ROOT

TEMPLATES = [ROOT / "template.yaml", *(ROOT / "infrastructure").glob("*.yaml")]


def create_only(kind: str) -> tuple[str, ...]:
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", kind).schema
    pointers = [pointer.split("/") for pointer in schema.get("createOnlyProperties", [])]
    return tuple(sorted({path[2] for path in pointers if len(path) == 3}))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_table_has_the_types_of_the_template(template: Path) -> None:
    kinds = {resource["Type"] for resource in translate(template, {}, "us-east-1")["Resources"].values()}

    assert {kind: found for kind in sorted(kinds) if (found := create_only(kind))} == {
        kind: CREATE_ONLY[kind] for kind in sorted(kinds) if kind in CREATE_ONLY
    }
