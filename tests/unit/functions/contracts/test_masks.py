"""Keys and facts of masks that a transform job makes."""

from typing import Any

import pytest

from core.options import Options
from functions.contracts.masks import mask_key, read_facts


def key(sha256: str = "a" * 64, identity: str | None = "b" * 64, **options: Any) -> str:
    return mask_key(sha256, Options.parse({"model": "u2netp", **options}), identity)


@pytest.mark.parametrize(
    "other",
    [
        {"sha256": "c" * 64},
        {"identity": "c" * 64},
        {"model": "u2net"},
        {"roi": "0 0 50% 50%"},
        {"precision_level": "ultra_high"},
    ],
)
def test_a_mask_is_not_shared_with_another_image_model_or_option(other: dict[str, Any]) -> None:
    assert key(**other) != key()


def test_a_mask_is_shared_by_hosts() -> None:
    assert key(segmentation_host="sagemaker") == key(segmentation_host="lambda") == key()


@pytest.mark.parametrize("text", [None, "", "{}", '{"key": "masks/a.png"}', "no JSON"])
def test_facts_of_another_format_are_none(text: str | None) -> None:
    assert read_facts(text) is None
