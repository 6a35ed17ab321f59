import json
import re
from dataclasses import replace
from typing import Any

import pytest

from core.errors import InvalidOptionsError
from core.segmentation.registry import CLASSICAL, MODELS, Model, check_name, names, with_custom
from tests.conftest import ROOT
from tests.fakes.registry_entries import CUSTOM, model


@pytest.mark.parametrize("entry", MODELS.values(), ids=MODELS.keys())
def test_every_entry_is_a_session_of_rembg_and_names_a_hash_and_a_licence(entry: Model) -> None:
    from rembg.sessions import sessions_names_downloadable

    assert entry.name in sessions_names_downloadable
    assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
    assert entry.file.endswith(".onnx")
    assert entry.licence


def test_hashes_and_files_are_each_one_models_own() -> None:
    assert len({entry.sha256 for entry in MODELS.values()}) == len(MODELS)
    assert len({entry.file for entry in MODELS.values()}) == len(MODELS)


def test_names_list_every_network_and_the_built_in_segmenter() -> None:
    assert set(names()) == {*MODELS, CLASSICAL}


def test_an_unknown_model_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(InvalidOptionsError) as caught:
        check_name("u3net", MODELS)
    assert caught.value.value == "u3net"
    assert all(name in caught.value.remedy for name in names())


def test_custom_models_follow_the_registry() -> None:
    found = with_custom(json.dumps([CUSTOM, {**CUSTOM, "name": "second", "std": [1, 1, 1], "logits": True}]))
    assert list(found) == [*MODELS, "products-v2", "second"]
    custom = found["products-v2"]
    assert (custom.uri, custom.file, custom.input_px) == (CUSTOM["uri"], "products-v2.onnx", 512)
    assert not custom.commercial_use and custom.licence == "not stated", "nothing is assumed of a licence"
    assert custom.mean == MODELS["u2net"].mean
    assert found["second"].logits and found["second"].std == (1, 1, 1)


def test_no_text_describes_no_model() -> None:
    assert with_custom("") == MODELS


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "u2net"}, "0.name"),
        ({"name": CLASSICAL}, "0.name"),
        ({"name": "auto"}, "0.name"),
        ({"name": "../escape"}, "0.name"),
        ({"name": "a/b"}, "0.name"),
        ({"name": ".."}, "0.name"),
        ({"name": "a\n"}, "0.name"),
        ({"name": ""}, "0.name"),
        ({"uri": "ftp://host/x.onnx"}, "0.uri"),
        ({"uri": "s3://bucket"}, "0.uri"),
        ({"uri": "s3://bucket/folder/"}, "0.uri"),
        ({"uri": "file://x.onnx"}, "0.uri"),
        ({"uri": "https://host/a\u0000b"}, "0.uri"),
        ({"sha256": "A" * 64}, "0.sha256"),
        ({"bytes": "1000"}, "0.bytes"),
        ({"bytes": 10**400}, "0.bytes"),
        ({"bytes": 0}, "0.bytes"),
        ({"bytes": True}, "0.bytes"),
        ({"input_px": 0}, "0.input_px"),
        ({"memory_bytes": -1}, "0.memory_bytes"),
        ({"licence": "MIT\u001b[31m"}, "0.licence"),
        ({"commercial_use": "yes"}, "0.commercial_use"),
        ({"mean": [0.5, 0.5]}, "0.mean.2"),
        ({"std": [1, 1, float("nan")]}, "0.std.2"),
        ({"std": [1, 0, 1]}, "0.std.1"),
        ({"threads": 4}, "0.threads"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_custom_model_is_told_with_its_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidOptionsError) as caught:
        with_custom(json.dumps([{**CUSTOM, **change}]))
    assert caught.value.field == f"PBR_CUSTOM_MODELS.{field}"
    assert "docs/how-to/models.md" in caught.value.remedy


@pytest.mark.parametrize("missing", CUSTOM)
def test_a_custom_model_names_all_that_its_file_needs(missing: str) -> None:
    with pytest.raises(InvalidOptionsError, match=f"0.{missing}"):
        with_custom(json.dumps([{key: value for key, value in CUSTOM.items() if key != missing}]))


def test_two_custom_models_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidOptionsError) as caught:
        with_custom(json.dumps([CUSTOM, CUSTOM]))
    assert (caught.value.field, caught.value.value) == ("PBR_CUSTOM_MODELS.1.name", CUSTOM["name"])


def test_the_page_on_models_has_the_registrys_facts() -> None:
    rows = [line.strip("| ").split(" | ") for line in (ROOT / "docs/how-to/models.md").read_text().splitlines()]
    documented = {row[0].strip("`"): row for row in rows if len(row) == 7}
    for entry in MODELS.values():
        _, side, size, memory, _, licence, commercial = documented[entry.name]
        assert side == f"{entry.input_px} px"
        assert size == f"{entry.bytes / 1e6:,.1f} MB"
        assert memory == f"{entry.memory_bytes / 1e9:g} GB"
        assert licence == entry.licence
        assert commercial == ("yes" if entry.commercial_use else "no")


def test_a_model_is_another_one_once_it_is_fed_otherwise() -> None:
    assert all(entry.identity == entry.sha256 for entry in MODELS.values())
    custom = model(uri="https://models.example.com/small.onnx")
    others = [replace(custom, **change) for change in ({"logits": True}, {"input_px": 64}, {"mean": (0.0, 0.0, 0.0)})]
    assert len({entry.identity for entry in [custom, *others]}) == 4
    assert replace(custom, licence="another").identity == custom.identity
