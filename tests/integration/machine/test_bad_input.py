"""Whatever is wrong with an upload: a FAILED execution, a report with field, value and remedy, and the topic told."""

import io
import json
import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from tests.conftest import disc, file_of
from tests.integration.machine.conftest import Deployed


def png_header(width: int, height: int) -> bytes:
    """A valid PNG header that promises more pixels than anybody should decode, and next to no data."""

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


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_fails_with_a_report_that_says_what_to_do(stack: Deployed, name: str) -> None:
    make, error = BAD[name]
    ended = stack.process(f"bad/{name}", make())
    assert (ended.status, ended.error) == ("FAILED", error)
    report = stack.report(f"bad/{name}")
    assert report["error"] == error
    assert report["source"]["key"] == f"bad/{name}"
    assert report["stage"] in ended.states and report["stage"] in (ended.cause or "")
    assert report["field"] and report["message"] and report["remedy"]
    assert "Traceback" not in json.dumps(report) + str(ended.cause) and "stackTrace" not in json.dumps(report)


def test_content_counts_and_the_name_does_not(stack: Deployed) -> None:
    ended = stack.process("really-a-png.jpg", disc(seed=40))
    assert ended.status == "SUCCEEDED", ended.cause
    assert ended.output["source"]["format"] == "png"


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"pbr-colour": "red"}, "options.colour"),
        ({"pbr-format": "gif"}, "options.format"),
        ({"pbr-model": "u3net"}, "options.model"),
        ({"pbr-background-key": "backgrounds/none.png"}, "options.background_key"),
    ],
)
def test_a_bad_option_is_named(stack: Deployed, metadata: dict[str, str], field: str) -> None:
    key = f"options/{field}.png"
    ended = stack.process(key, disc(seed=41), metadata)
    assert ended.status == "FAILED"
    assert stack.report(key)["field"] == field


def test_an_object_that_is_not_there_is_a_failure_of_its_own(stack: Deployed) -> None:
    ended = stack.wait(stack.start({"bucket": stack.outputs["UploadsBucket"], "key": "never-uploaded.jpg"}))
    assert (ended.status, ended.error) == ("FAILED", "SourceNotFoundError")
    assert stack.report("never-uploaded.jpg")["stage"] == "Validate"


def test_an_input_that_names_nothing_is_reported_under_the_execution(stack: Deployed) -> None:
    arn = stack.sfn.start_execution(stateMachineArn=stack.outputs["StateMachineArn"], input='{"photo": "a.jpg"}')[
        "executionArn"
    ]
    ended = stack.wait(arn)
    assert (ended.status, ended.error) == ("FAILED", "InvalidRequestError")
    assert stack.report(f"executions/{arn.rsplit(':', 1)[1]}")["field"] == "input"


def test_a_key_too_long_to_name_a_result_after_is_refused_and_reported(stack: Deployed) -> None:
    version = stack.upload("k" * 1020, disc(seed=42))
    arn = stack.execution_of("k" * 1020, version)
    assert stack.wait(arn).error == "InvalidRequestError"
    assert stack.report(f"executions/{arn.rsplit(':', 1)[1]}")["field"] == "source.key"


def test_a_failure_releases_the_claim_so_that_the_next_upload_tries_itself(stack: Deployed) -> None:
    noise = np.full((100, 100, 3), 255, np.uint8)
    data = file_of(Image.fromarray(noise), "PNG")
    before = len(stack.cached())
    first, second = stack.process("claim/1.png", data), stack.process("claim/2.png", data)
    for ended in (first, second):
        assert ended.error == "UnknownForegroundError"
        assert "ClaimWork" in ended.states and "ReleaseClaim" in ended.states
    assert len(stack.cached()) == before


def test_the_topic_is_told(stack: Deployed) -> None:
    queue = stack.sqs.create_queue(QueueName="listener")["QueueUrl"]
    arn = stack.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    stack.sns.subscribe(TopicArn=stack.outputs["FailuresTopicArn"], Protocol="sqs", Endpoint=arn)
    stack.process("told/näme.jpg", b"")
    time.sleep(0.2)
    [message] = stack.sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5)["Messages"]
    told = json.loads(message["Body"])
    assert told["Subject"] == "Background removal failed in Validate: told/n?me.jpg"
    assert json.loads(told["Message"]) == stack.report("told/näme.jpg")
