from hypothesis import given
from hypothesis import strategies as st

from core.limits import MAX_KEY_BYTES
from core.options import Host, Metadata, Options, Output, OutputFormat
from core.types import Precision
from functions.contracts.object_keys import cache_key, failure_key, result_keys, second_attempt_keys

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
        "crop": True,
        "crop_margin": 0.1,
        "scale": "80%",
        "position": "center",
        "max_megapixels": 0.25,
        "roi": "0% 0% 50% 100%",
        "metadata": Metadata.ALL,
    }
    assert Options.model_fields.keys() - changes.keys() == {"segmentation_host", "background_key"}
    variants = [
        key(base),
        key(base, content="b" * 64),
        key(base, weights="c" * 64),
        key(base, background="c" * 64),
        *(key(base.model_copy(update={option: value})) for option, value in changes.items()),
    ]
    assert len(set(variants)) == len(variants)


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


def test_result_keys_keep_the_folders_of_the_upload_and_have_the_extension_of_the_format() -> None:
    keys = result_keys("photos/2026/a.b.jpg", "k", Options(format=OutputFormat.JPEG, background_color="#ffffff"))
    assert keys.result == "results/photos/2026/a.b.jpg"
    assert keys.sidecar == "results/photos/2026/a.b.json"
    assert keys.cached == "cache/k.jpg"


def test_a_report_key_contains_the_source_key_or_else_the_execution() -> None:
    assert failure_key("photos/a.jpg", "6f3a") == "failed/photos/a.jpg.json"
    assert failure_key(None, "6f3a") == "failed/executions/6f3a.json"
    assert failure_key("ö" * 510, "6f3a") == "failed/executions/6f3a.json", "S3 takes no key of more than 1,024 bytes"


def test_keys_derived_from_the_longest_key_are_valid_in_s3() -> None:
    longest = "k" * MAX_KEY_BYTES
    keys = result_keys(longest, "c" * 64, Options(format=OutputFormat.WEBP))
    assert longest in failure_key(longest, "6f3a")
    assert max(map(len, (keys.result, keys.sidecar, failure_key(longest, "6f3a")))) <= 1024


@given(st.text(min_size=1))
def test_every_source_key_has_its_own_result_key(source_key: str) -> None:
    keys = result_keys(source_key, "k", Options())
    assert keys.result.startswith("results/") and keys.result.endswith(".png")
    assert keys.result.removesuffix(".png") == keys.sidecar.removesuffix(".json")
    assert keys.result.count("/") == source_key.count("/") + 1
