"""A bad upload: a FAILED execution, a report with field, value and remedy, and a message on the topic."""

import hashlib
import io
import json
import struct
import zlib
from collections.abc import Callable, Iterable
from email.header import Header
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.limits import MAX_KEY_BYTES
from functions.contracts.object_keys import result_key
from tests.conftest import disc, file_of
from tests.integration.deployment import Deployed


def png_header(width: int, height: int) -> bytes:
    """Return a PNG whose valid header states far too many pixels, with almost no data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def animated() -> bytes:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    return file_of(frames[0], "GIF", save_all=True, append_images=frames[1:])


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "truncated.png": (lambda: disc()[:-2000], "CorruptImageError"),
    "truncated.jpg": (lambda: file_of(Image.open(io.BytesIO(disc())), "JPEG")[:4000], "CorruptImageError"),
    "zero.jpg": (lambda: b"", "EmptyImageError"),
    "text.jpg": (lambda: b"this is no picture", "UnsupportedFormatError"),
    "one.png": (lambda: file_of(Image.new("RGB", (1, 1)), "PNG"), "ImageTooSmallError"),
    "huge.png": (lambda: png_header(30_000, 30_000), "TooManyPixelsError"),
    "bomb.png": (lambda: file_of(Image.new("1", (20_000, 20_000)), "PNG"), "TooManyPixelsError"),
    "moving.gif": (animated, "AnimatedImageError"),
    "blank.png": (lambda: file_of(Image.new("RGB", (200, 200), "white"), "PNG"), "UnknownForegroundError"),
}


KEYS = {
    "composed": "tricks/n\xe4me.png",
    "decomposed": "tricks/na\u0308me.png",
    "emoji": "tricks/\U0001f468\u200d\U0001f469\u200d\U0001f467.png",
    "right to left": "tricks/\u202egpj.exe\u200f.png",
    "spaces": " tricks/ a  b .png ",
    "plus": "tricks/a+b c.png",
    "percent": "tricks/100%.png",
    "encoded slash": "tricks%2Fa.png",
    "encoded twice": "tricks/%252e%252e/a.png",
    "query": "tricks/a?versionId=b&x=#c;d=e.png",
    "quotes": "tricks/\"a\" 'b' `c`.png",
    "backslashes": "..\\tricks\\a.png",
    "braces": "tricks/{}{0}$.keys[*]\\{.png",
    "markup": "tricks/<a>&amp;]]>.png",
    "dots": "tricks/a/../../b.png",
    "slashes": "tricks//a///b.png",
    "leading slash": "/tricks/c.png",
    "trailing dot": "tricks/d.",
    "only an extension": "tricks/.png",
    "no extension": "tricks/e",
    "a result's name": "results/tricks/g.json",
    "a report's name": "failed/tricks/h.png.json",
    "another's sidecar": "tricks/i.json",
    "tab": "tricks/j\tk.png",
    "control characters": "tricks/\x01\x1b[31m\x7f.png",
    "longest": "tricks/" + "é" * ((MAX_KEY_BYTES - len("tricks/.png")) // 2) + ".png",
}

SLOW = pytest.mark.slow


def fast(names: Iterable[str], *some: str) -> list[Any]:
    """Return all names as parameters, marked slow but for some."""
    return [pytest.param(name, marks=() if name in some else SLOW) for name in names]


@pytest.mark.parametrize("name", fast(BAD, "truncated.png", "text.jpg"))
def test_a_bad_image_fails_with_a_report_that_has_a_remedy(stack: Deployed, name: str) -> None:
    make, error = BAD[name]
    ended = stack.process(f"bad/{name}", make())
    assert (ended.status, ended.error) == ("FAILED", error)
    report = stack.report(f"bad/{name}")
    assert report["error"] == error
    assert report["source"]["key"] == f"bad/{name}"
    assert report["stage"] in ended.states and report["stage"] in (ended.cause or "")
    assert report["field"] and report["message"] and report["remedy"]
    assert "Traceback" not in json.dumps(report) + str(ended.cause) and "stackTrace" not in json.dumps(report)


@pytest.mark.slow
def test_the_format_is_read_from_the_content_and_not_from_the_name(stack: Deployed) -> None:
    ended = stack.process("really-a-png.jpg", disc(seed=40))
    assert ended.status == "SUCCEEDED", ended.cause
    assert ended.output["source"]["format"] == "png"


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"pbr-colour": "red"}, "options.colour"),
        pytest.param({"pbr-format": "gif"}, "options.format", marks=SLOW),
        pytest.param({"pbr-model": "u3net"}, "options.model", marks=SLOW),
        ({"pbr-model": "birefnet-general"}, "options.model"),  # needs more memory than the segment function has
        pytest.param({"pbr-background-key": "backgrounds/none.png"}, "options.background_key", marks=SLOW),
        ({"pbr-roi": "0px 0px 321px 240px"}, "options.roi"),
    ],
)
def test_the_report_names_the_bad_option(stack: Deployed, metadata: dict[str, str], field: str) -> None:
    key = f"options/{field}.png"
    ended = stack.process(key, disc(seed=41), metadata)
    assert ended.status == "FAILED"
    assert stack.report(key)["field"] == field


@pytest.mark.slow
def test_an_image_that_encode_cannot_hold_is_rejected_by_validate(stack: Deployed) -> None:
    ended = stack.process("large.png", file_of(Image.new("L", (7000, 7000)), "PNG"), {"pbr-format": "avif"})
    assert (ended.status, ended.error) == ("FAILED", "TooManyPixelsError")
    report = stack.report("large.png")
    assert (report["stage"], report["field"], report["value"]) == ("Validate", "image.pixels", "7000 x 7000")
    assert "max_megapixels" in report["remedy"] and "EncodeMemory" in report["remedy"]


@pytest.mark.slow
def test_a_missing_object_fails_with_its_own_error(stack: Deployed) -> None:
    ended = stack.wait(stack.start({"bucket": stack.outputs["UploadsBucket"], "key": "never-uploaded.jpg"}))
    assert (ended.status, ended.error) == ("FAILED", "SourceNotFoundError")
    assert stack.report("never-uploaded.jpg")["stage"] == "Validate"


def test_a_source_in_another_bucket_is_reported_under_the_execution(stack: Deployed) -> None:
    key = "same/key.png"  # an upload may have it, too
    arn = stack.start({"bucket": stack.outputs["ResultsBucket"], "key": key})
    ended = stack.wait(arn)
    assert (ended.status, ended.error) == ("FAILED", "InvalidRequestError")
    assert not stack.is_reported(key)
    assert stack.report(f"executions/{arn.rpartition(':')[2]}")["source"]["key"] == key


def test_an_input_without_a_source_is_reported_under_the_execution(stack: Deployed) -> None:
    arn = stack.sfn.start_execution(stateMachineArn=stack.outputs["StateMachineArn"], input='{"photo": "a.jpg"}')[
        "executionArn"
    ]
    ended = stack.wait(arn)
    assert (ended.status, ended.error) == ("FAILED", "InvalidRequestError")
    assert stack.report(f"executions/{arn.rsplit(':', 1)[1]}")["field"] == "input"


@pytest.mark.slow
def test_a_key_longer_than_s3_accepts_is_reported_under_the_execution(stack: Deployed) -> None:
    arn = stack.start({"bucket": stack.outputs["UploadsBucket"], "key": "k" * (MAX_KEY_BYTES + 1)})
    assert stack.wait(arn).error == "InvalidRequestError"
    assert stack.report(f"executions/{arn.rsplit(':', 1)[1]}")["field"] == "source.key"


@pytest.mark.parametrize("name", fast(KEYS, "longest"))
def test_a_key_of_any_characters_has_a_result_and_a_report(stack: Deployed, name: str) -> None:
    """The result is made once, so that all keys but the first are served from the cache: S3 copies it to its name."""
    key = KEYS[name]
    result = result_key(key, "png")
    assert result == f"results/{key}.png" or name == "longest"
    ended = stack.process(key, disc(seed=43))
    assert ended.status == "SUCCEEDED", ended.cause
    sidecar = json.loads(stack.result(f"{result}.json"))
    assert (sidecar["source"]["key"], sidecar["result"]["key"]) == (key, result)
    assert hashlib.sha256(stack.result(result)).hexdigest() == sidecar["image"]["sha256"]

    assert stack.process(key, b"no picture").error == "UnsupportedFormatError"
    assert stack.report(key)["source"]["key"] == key


@pytest.mark.parametrize(
    "value",
    ["w\tebp", "\x1b[31mwebp", "wébp", "\u202epbew", "x" * 1500],
    ids=["tab", "escape", "é", "right to left", "long"],
)
@pytest.mark.slow
def test_the_report_shows_an_option_value_of_any_characters(stack: Deployed, value: str) -> None:
    """S3 returns metadata that are not ASCII in RFC 2047 encoding."""
    key = f"options/{len(value)}-{ord(value[0])}.png"
    encoded = value if value.isascii() else Header(value, "utf-8", maxlinelen=998).encode()
    assert stack.process(key, disc(seed=44), {"pbr-format": encoded}).error == "InvalidOptionsError"
    report = stack.report(key)
    assert report["field"] == "options.format"
    assert report["value"] == value or (len(value) > 300 and report["value"] == "x" * 299 + "…")


def test_a_failure_releases_the_claim_for_the_next_upload(stack: Deployed) -> None:
    noise = np.full((100, 100, 3), 255, np.uint8)
    data = file_of(Image.fromarray(noise), "PNG")
    before = len(stack.cached())
    first, second = stack.process("claim/1.png", data), stack.process("claim/2.png", data)
    for ended in (first, second):
        assert ended.error == "UnknownForegroundError"
        assert "ClaimWork" in ended.states and "ReleaseClaim" in ended.states
    assert len(stack.cached()) == before


def test_a_failure_report_is_published_to_the_topic(stack: Deployed) -> None:
    with stack.listener() as heard:
        stack.process("failures/näme.jpg", b"")
        [message] = heard()
    assert message["Subject"] == "Background removal failed in Validate: failures/n?me.jpg"
    assert json.loads(message["Message"]) == stack.report("failures/näme.jpg")
