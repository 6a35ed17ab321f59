import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from core.errors import CorruptImageError, DecodingLimitError, EmptyImageError, PermanentError, UnsupportedFormatError
from core.image.decode import decode
from functions.runtime.inspection import Inspector, Limits, function_limits
from tests.conftest import ROOT, file_of
from tests.resilience.hostile.corpus import picture

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limits and /proc")
SLOW_FILE = file_of(Image.new("RGB", (9_999, 9_999)), "WEBP", method=0, quality=0)
"""A file within all bounds that takes two seconds. Limits of CPU time have steps of one."""


@pytest.fixture(scope="module")
def inspector() -> Iterator[Inspector]:
    inspector = Inspector(Limits())
    yield inspector
    inspector.close()


@pytest.mark.parametrize("name", ["JPEG", "PNG", "HEIF", "AVIF", "WEBP"])
def test_the_facts_are_those_of_decoding_in_place(inspector: Inspector, name: str) -> None:
    data = file_of(picture(), name)
    here, there = decode(data, at_least_px=1), inspector.inspect(data)
    assert (there.info, there.warnings) == (here.info, here.warnings)


def test_warnings_are_handed_over(inspector: Inspector) -> None:
    assert "CMYK" in inspector.inspect(file_of(picture("CMYK"), "JPEG")).warnings[0]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", EmptyImageError),
        (b"no picture" * 100, UnsupportedFormatError),
        (file_of(picture(), "JPEG")[:400], CorruptImageError),
    ],
)
def test_errors_are_those_of_decoding_in_place(inspector: Inspector, data: bytes, error: type[PermanentError]) -> None:
    with pytest.raises(error) as here:
        decode(data, at_least_px=1)
    with pytest.raises(error) as there:
        inspector.inspect(data)
    assert there.value.facts() == here.value.facts()


def ends(data: bytes, limits: Limits) -> DecodingLimitError:
    """Return the error of an image, after which the next one is decoded."""
    inspector = Inspector(limits)
    try:
        with pytest.raises(DecodingLimitError) as caught:
            inspector.inspect(data)
        assert inspector.inspect(file_of(picture(), "PNG")).info.format == "png"
    finally:
        inspector.close()
    assert caught.value.remedy and caught.value.field == "image"
    return caught.value


def test_cpu_time_is_limited() -> None:
    assert "CPU" in str(ends(SLOW_FILE, Limits(cpu_s=0)).value)


def test_wall_time_is_limited() -> None:
    inspector = Inspector(Limits(wall_s=1))
    with pytest.raises(DecodingLimitError, match="more than 1 s"):
        inspector.inspect(SLOW_FILE)
    assert inspector.pids == []


@LINUX
def test_memory_is_limited() -> None:
    large = file_of(Image.new("RGB", (6000, 6000)), "PNG")
    assert ends(large, Limits(memory_bytes=60 << 20)).value == "out of memory"


@LINUX
@pytest.mark.parametrize("name, parameters", [("HEIF", {}), ("AVIF", {"speed": 10})])
def test_a_library_without_memory_does_not_make_a_file_damaged(name: str, parameters: dict[str, int]) -> None:
    large = file_of(Image.new("RGB", (3000, 3000)), name, **parameters)
    assert ends(large, Limits(memory_bytes=60 << 20)).value == "out of memory"


def test_a_process_that_something_else_ended_is_replaced(inspector: Inspector) -> None:
    data = file_of(picture(), "PNG")
    inspector.inspect(data)
    [pid] = inspector.pids
    os.kill(pid, signal.SIGKILL)
    assert inspector.inspect(data).info.format == "png"
    assert inspector.pids != [pid]


@LINUX
def test_the_process_outlives_the_thread_that_needed_it_first() -> None:
    inspector = Inspector(Limits())
    pids = []

    def inspect() -> None:
        inspector.inspect(file_of(picture(), "PNG"))
        pids.append(inspector.pids)

    for _ in range(2):
        thread = threading.Thread(target=inspect)
        thread.start()
        thread.join()
        time.sleep(0.05)
    assert pids[0] == pids[1]
    inspector.close()


@pytest.mark.parametrize(
    "answer",
    [
        "no JSON",
        "[]",
        "[" * 100_000,
        '{"info": {"format": "png", "width": [1], "height": 1, "bytes": 1}, "warnings": []}',
        '{"info": {"width": 1}, "warnings": []}',
        '{"error": "SystemExit", "message": "", "field": "", "value": 0, "remedy": ""}',
    ],
)
def test_an_answer_of_a_hijacked_process_is_an_error_of_the_image(answer: str) -> None:
    class Hijacked(Inspector):
        def _running(self) -> Any:
            return SimpleNamespace(ask=lambda data, limits: answer.encode(), alive=True)

    with pytest.raises(DecodingLimitError, match="crashed"):
        Hijacked(Limits()).inspect(b"GIF89a")


@LINUX
def test_the_process_has_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    inspector = Inspector(Limits())
    inspector.inspect(file_of(picture(), "PNG"))
    environment = Path(f"/proc/{inspector.pids[0]}/environ").read_bytes()
    inspector.close()
    assert b"PATH=" in environment and b"AWS_" not in environment


READER = """
import os, subprocess
from functions.runtime.inspection import Inspector, Limits
read = ["cat", f"/proc/{os.getpid()}/environ"]
assert "SECRET=42" in subprocess.run(read, capture_output=True, text=True).stdout
inspector = Inspector(Limits())
inspector.start()
print(subprocess.run(read, capture_output=True, text=True))
inspector.close()
"""


@LINUX
def test_no_process_of_the_same_user_can_read_the_environment_of_the_parent() -> None:
    as_any_user = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    command = [*as_any_user, sys.executable, "-c", READER]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "SECRET": "42"}, capture_output=True, text=True, check=True
    )
    assert "Permission denied" in done.stdout and "SECRET" not in done.stdout


PARENT = """
import sys, threading
from functions.runtime.inspection import Inspector, Limits
inspector = Inspector(Limits())
inspector.start()
print(inspector.pids[0], flush=True)
inspector.inspect(sys.stdin.buffer.read())
print("decoded", flush=True)
threading.Event().wait()
"""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@LINUX
@pytest.mark.parametrize("busy", [True, False])
def test_the_process_ends_with_its_parent(busy: bool) -> None:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin and parent.stdout
        pid = int(parent.stdout.readline())
        parent.stdin.write(SLOW_FILE if busy else file_of(picture(), "PNG"))
        parent.stdin.close()
        if busy:
            time.sleep(1)
        else:
            assert parent.stdout.readline() == b"decoded\n"
        assert is_running(pid)
        parent.kill()
    until = time.monotonic() + 5
    while is_running(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_running(pid)


def test_the_memory_of_a_function_limits_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", raising=False)
    default = function_limits()
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "2048")
    assert function_limits() == replace(default, memory_bytes=1648 << 20)
