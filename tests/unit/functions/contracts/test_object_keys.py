import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.limits import MAX_KEY_BYTES
from core.options import Host, Metadata, Options, Output, OutputFormat
from core.types import Precision
from functions.contracts.object_keys import (
    EXTENSIONS,
    cache_key,
    failure_key,
    result_key,
    result_keys,
    second_attempt_keys,
    sidecar_key,
    sidecar_keys,
)

CONTENT = "a" * 64


def key(options: Options, *, content: str = CONTENT, weights: str | None = None, background: str | None = None) -> str:
    return cache_key(content, options, model_identity=weights, background_sha256=background)


def test_every_option_that_changes_pixels_changes_the_cache_key() -> None:
    base = Options(model="u2net")
    changes = {
        "precision_level": Precision.DRAFT,
        "model": "isnet-general-use",
        "output": Output.MASK,
        "format": OutputFormat.WEBP,
        "quality": 91,
        "background_color": "#ffffff",
        "background_blur": "2%",
        "crop": True,
        "crop_margin": 0.1,
        "scale": "80%",
        "position": "center",
        "max_megapixels": 0.25,
        "roi": "0% 0% 50% 100%",
        "metadata": Metadata.ALL,
        "canvas": "4:5",
        "outline": "8px",
    }
    unchanged = {"preset", "segmentation_host", "background_key", "outline_color"}
    assert Options.model_fields.keys() - changes.keys() == unchanged
    variants = [
        key(base),
        key(base, content="b" * 64),
        key(base, weights="c" * 64),
        key(base, background="c" * 64),
        *(key(base.model_copy(update={option: value})) for option, value in changes.items()),
    ]
    assert len(set(variants)) == len(variants)


def test_the_color_of_the_outline_changes_the_cache_key_if_there_is_one() -> None:
    def colored(outline: str) -> set[str]:
        return {key(Options(outline=outline, outline_color=color)) for color in ("#ffffff", "#000000")}

    assert len(colored("0")) == 1 and colored("0") == colored("0px") and len(colored("2%")) == 2


def test_requests_without_newer_options_keep_the_cache_key_of_the_version_before() -> None:
    options = Options(model="u2net", scale="80%", background_color="#ffffff")
    assert key(options, weights="b" * 64) == "d359af35eecbd6d9edeffacd26604eb1aa0cdb27dcfda46ef65dbf06a10c0395"


def test_the_name_of_a_preset_does_not_change_the_cache_key_but_its_options_do() -> None:
    by_preset = Options.parse({"preset": "sticker", "model": "u2net"})
    by_hand = by_preset.model_copy(update={"preset": None})
    assert key(by_preset) == key(by_hand) != key(Options(model="u2net"))


def test_the_host_and_the_key_of_the_background_do_not_change_the_cache_key() -> None:
    base = Options(model="u2net")
    assert key(base) == key(base.model_copy(update={"segmentation_host": Host.ECS}))
    assert key(base, background="d" * 64) == key(
        base.model_copy(update={"background_key": "backgrounds/beach.jpg"}), background="d" * 64
    )


def test_a_possible_second_attempt_is_part_of_the_cache_key() -> None:
    base = Options(model="u2netp")

    def with_second(escalation: tuple[str, str | None] | None) -> str:
        return cache_key(CONTENT, base, model_identity=None, background_sha256=None, escalation=escalation)

    known = {with_second(second) for second in (None, ("u2net", "e" * 64), ("u2net", "f" * 64), ("classical", None))}
    assert len(known) == 4
    assert with_second(None) == key(base)


def test_tenants_have_separate_cache_keys() -> None:
    def of(tenant: str | None) -> str:
        return cache_key(CONTENT, Options(), model_identity=None, background_sha256=None, tenant=tenant)

    assert len({of("a"), of("b"), of(None)}) == 3
    assert of(None) == key(Options())


def test_two_attempts_share_no_object() -> None:
    first = result_keys("a.jpg", "k", Options())
    assert not {first.mask, first.alpha} & set(second_attempt_keys("k"))


def test_result_keys_keep_the_source_key_and_have_the_extension_of_the_format() -> None:
    keys = result_keys("photos/2026/a.b.jpg", "k", Options(format=OutputFormat.JPEG, background_color="#ffffff"))
    assert keys.result == "results/photos/2026/a.b.jpg.jpg"
    assert keys.sidecar == "results/photos/2026/a.b.jpg.jpg.json"
    assert keys.cached == "cache/k.jpg"


def test_a_sidecar_can_have_a_key_for_each_extension_or_that_of_version_0_2() -> None:
    assert sidecar_keys("photos/a.jpg") == [
        *(f"results/photos/a.jpg.{extension}.json" for extension in ("png", "webp", "avif", "jpg", "zip")),
        "results/photos/a.json",
    ]
    assert sidecar_keys("photos/a")[-1] == "results/photos/a.json"
    assert sidecar_keys("photos.2026/.png")[-1] == "results/photos.2026/.png.json"


def test_a_report_key_contains_the_source_key_or_else_the_execution() -> None:
    assert failure_key("photos/a.jpg", "6f3a") == "failed/photos/a.jpg.json"
    assert failure_key(None, "6f3a") == "failed/executions/6f3a.json"


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_only_keys_that_s3_would_not_accept_end_in_a_hash(extension: str) -> None:
    longest = MAX_KEY_BYTES - len(f"results/.{extension}.json")
    whole, hashed = result_key("k" * longest, extension), result_key("k" * (longest + 1), extension)
    assert whole == f"results/{'k' * longest}.{extension}"
    assert re.fullmatch(rf"results/k+-[0-9a-f]{{64}}\.{extension}", hashed)
    assert len(sidecar_key(whole)) == len(sidecar_key(hashed)) == MAX_KEY_BYTES


@given(st.text("kö€😀", min_size=250, max_size=1100).filter(lambda key: len(key.encode()) <= MAX_KEY_BYTES))
def test_all_keys_derived_from_a_long_key_are_valid_in_s3(source_key: str) -> None:
    results = [result_key(source_key, extension) for extension in EXTENSIONS]
    keys = [*results, *map(sidecar_key, results), failure_key(source_key, "6f3a")]
    assert all(len(key.encode()) <= MAX_KEY_BYTES and source_key[:200] in key for key in keys)


def test_long_keys_that_begin_alike_have_their_own_results_and_reports() -> None:
    keys = ["k" * 1000 + end for end in ("a" * 24, "a" * 23, "b" * 24)]
    assert len({result_key(key, "png") for key in keys}) == len({failure_key(key, "6f3a") for key in keys}) == 3


KEYS = st.text(".ab/", min_size=1) | st.builds("{}.{}".format, st.text("ab/"), st.sampled_from([*EXTENSIONS, "json"]))


@given(st.lists(st.tuples(KEYS, st.sampled_from(EXTENSIONS)), min_size=2, unique=True))
@example([("shoe.jpg", "png"), ("shoe.png", "png"), ("shoe", "png"), ("shoe.png", "webp"), ("shoe.png.json", "png")])
def test_no_two_sources_or_extensions_share_a_key(sources: list[tuple[str, str]]) -> None:
    results = [result_key(key, extension) for key, extension in sources]
    assert len({*results, *map(sidecar_key, results)}) == 2 * len(sources)
