"""Decode an untrusted image in a process of its own, under limits of CPU time and memory that end only that process.

Validate does it before any other stage decodes the same bytes with the same code, and a SageMaker endpoint before it
decodes an image that was sent straight to it. They need the facts and not the pixels, which stay in the child. The
child is kept for the next image. It has no AWS credentials in its environment, cannot read its parent's, and answers in
JSON, so that a file that takes it over gains neither credentials nor the parent.

A pair of sockets connects the two, because Lambda has neither ``/dev/shm`` nor semaphores. The child ends with its
parent: at the end of file of its socket, and on Linux by a signal even while it decodes.
"""

import contextlib
import ctypes
import json
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from core import errors
from core.errors import BackgroundRemoverError, DecodingLimitError
from core.types import ImageInfo

_HEADER: Final = struct.Struct(">IIQ")  # bytes of the image, seconds of CPU time, bytes of memory
_LENGTH: Final = struct.Struct(">I")
_MAX_ANSWER_BYTES: Final = 1 << 20
_MAX_UNEXPECTED_CHARS: Final = 2000
_PERMANENT: Final = {error.__name__: error for error in errors.PermanentError.__subclasses__()}
_CV_NO_MEMORY: Final = -4
_NO_MEMORY: Final = re.compile("Memory allocation error: Unspecified|Out of memory")
"""How libheif and libavif report a failed allocation."""
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_RESERVED_BYTES: Final = 400 << 20
"""Memory of the interpreters, the SDK and the parent's copy of the file."""


@dataclass(frozen=True)
class Limits:
    """Limits of one image.

    The slowest file that :mod:`core.image.guards` accepts takes 10 s of CPU time on a core of 2020. Validate's function
    has 120 s. A read of S3 without a response takes at most 55 of them.

    Attributes:
        cpu_s: CPU time of all threads, in seconds.
        wall_s: time, in seconds, for decoders that wait for something that never happens.
        memory_bytes: writable memory, besides that of the started process.
    """

    cpu_s: int = 45
    wall_s: float = 60.0
    memory_bytes: int = 1 << 31


def function_limits() -> Limits:
    """Return the limits for this process: on Lambda, and where it is emulated, of the function's memory."""
    memory_mb = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
    if memory_mb is None:
        return Limits()
    return Limits(memory_bytes=max(_RESERVED_BYTES, (int(memory_mb) << 20) - _RESERVED_BYTES))


@dataclass(frozen=True)
class Inspected:
    """The facts of a picture: its ``info`` and ``warnings``, see :class:`core.arrays.Picture`."""

    info: ImageInfo
    warnings: tuple[str, ...]


class Inspector:
    """A process that decodes images, started with the first one. Thread-safe; one image at a time.

    Args:
        limits: of each image.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or function_limits()
        self._lock = threading.Lock()
        # Linux ends a child with the thread that started it, and callers' threads are short.
        self._starter = ThreadPoolExecutor(1)
        self._child: _Child | None = None

    def start(self) -> None:
        """Start the process, without waiting until it is ready."""
        with self._lock:
            self._running()

    def inspect(self, data: bytes) -> Inspected:
        """Decode a file at its smallest scale, which reads every byte, and return its facts.

        Raises:
            DecodingLimitError: that takes more than the limits, or ends the process twice.
            PermanentError: as :func:`core.image.decode.decode` raises it. For want of memory it is a CorruptImageError
                if the format's library reports a failed allocation as damage, as libjpeg does.
        """
        with self._lock:
            for _attempt in range(2):  # the host can end the process too, for example for want of memory
                child = self._running()
                try:
                    return _read(child.ask(data, self._limits))
                except TimeoutError as error:
                    self._stop()
                    raise _too_expensive(f"more than {self._limits.wall_s:g} s") from error
                except (OSError, EOFError, _MalformedError):
                    if self._stop() == -signal.SIGXCPU:
                        raise _too_expensive(f"more than {self._limits.cpu_s} s of CPU time") from None
        raise _too_expensive("the decoder crashed")

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._stop()

    @property
    def pids(self) -> list[int]:
        """The running process, if any."""
        return [self._child.pid] if self._child and self._child.alive else []

    def _running(self) -> "_Child":
        if self._child is not None and not self._child.alive:
            self._stop()
        self._child = self._child or self._starter.submit(_Child).result()
        return self._child

    def _stop(self) -> int | None:
        child, self._child = self._child, None
        return child.end() if child else None


class _Child:
    """The parent's end of the process."""

    def __init__(self) -> None:
        _hide()
        self._socket, theirs = socket.socketpair()
        with theirs:
            environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
            self._process = subprocess.Popen(  # noqa: S603  the command is trusted
                [sys.executable, "-m", __name__, str(theirs.fileno()), str(os.getpid())],
                env={**_ALLOCATOR, **environment, "PYTHONPATH": os.pathsep.join([str(_CODE), *sys.path])},
                cwd=_CODE,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, data: bytes, limits: Limits) -> bytes:
        """Send an image and return the answer.

        Raises:
            TimeoutError: there is none within ``wall_s``.
            OSError, EOFError: the process has ended.
        """
        until = time.monotonic() + limits.wall_s
        self._socket.settimeout(limits.wall_s)
        self._socket.sendall(_HEADER.pack(len(data), limits.cpu_s, limits.memory_bytes))
        self._socket.sendall(data)
        [length] = _LENGTH.unpack(self._receive(_LENGTH.size, until))
        if length > _MAX_ANSWER_BYTES:
            raise EOFError(f"an answer of {length} bytes")
        return self._receive(length, until)

    def _receive(self, length: int, until: float) -> bytes:
        received = b""
        while len(received) < length:
            self._socket.settimeout(max(0.001, until - time.monotonic()))
            part = self._socket.recv(length - len(received))
            if not part:
                raise EOFError("the process has ended")
            received += part
        return received

    def end(self) -> int:
        """Return the exit status; a process that still runs is killed."""
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(_GRACE_S)
        self._process.kill()
        return self._process.wait()


_ALLOCATOR: Final = {"MALLOC_TRIM_THRESHOLD_": str(64 << 20), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}
"""glibc keeps up to 64 MB for the next image. Fresh pages took 40 ms for a PNG of 1 MP."""

_CODE: Final = Path(__file__).parents[2]
_GRACE_S: Final = 1.0
"""Time for a process to end by itself: one that has closed its socket is on the way out."""


def _hide() -> None:
    """Keep other processes of this user from the memory and the environment of this one, which have credentials.

    On Linux only. From then on, debuggers and profilers such as py-spy need root, the process leaves no core dump, and
    without root not even it can open its own ``environ``, ``auxv``, ``io`` and ``mem`` in ``/proc``. Processes that it
    starts are not affected.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)


def _too_expensive(why: str) -> DecodingLimitError:
    return DecodingLimitError(
        "Decoding the image takes more time or memory than the limit",
        field="image",
        value=why,
        remedy="Open it in an image editor, save it again as PNG or JPEG, and upload that.",
    )


class _MalformedError(Exception):
    """The answer is not one that this module writes: the file has taken over the process."""


def _read(text: bytes) -> Inspected:
    """Return the facts in an answer, or raise the error in it."""
    try:
        answer = json.loads(text)
        if "info" in answer:
            info = ImageInfo(**answer["info"])
            if [type(fact) for fact in astuple(info)] != [str, int, int, int]:
                raise TypeError("facts of other types")
            return Inspected(info, tuple(map(str, answer["warnings"])))
        if "unexpected" in answer:
            unexpected: Exception = RuntimeError(answer["unexpected"])
        else:
            unexpected = _PERMANENT[answer.pop("error")](answer.pop("message"), **answer)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _MalformedError from error
    raise unexpected


# ---- The child


def _work(requests: BinaryIO, answers: socket.socket) -> None:
    """Answer requests until the parent closes its socket."""
    from core.image.decode import decode

    started_bytes = _data_bytes()
    while header := requests.read(_HEADER.size):
        length, cpu_s, memory_bytes = _HEADER.unpack(header)
        data = requests.read(length)
        _limit(cpu_s, started_bytes + memory_bytes)
        answer: dict[str, Any]
        try:
            picture = decode(data, at_least_px=1)
            answer = {"info": asdict(picture.info), "warnings": picture.warnings}
            del picture
        except BackgroundRemoverError as error:
            answer = (_too_expensive("out of memory") if _is_out_of_memory(error.__cause__) else error).facts()
        except MemoryError:
            answer = _too_expensive("out of memory").facts()
        except Exception as error:
            answer = {"unexpected": repr(error)[:_MAX_UNEXPECTED_CHARS]}
        del data
        text = json.dumps(answer).encode()
        answers.sendall(_LENGTH.pack(len(text)) + text)


def _is_out_of_memory(error: BaseException | None) -> bool:
    if isinstance(error, MemoryError) or getattr(error, "code", None) == _CV_NO_MEMORY:
        return True
    return _NO_MEMORY.search(str(error)) is not None


def _limit(cpu_s: int, memory_bytes: int) -> None:
    """Limit the CPU time of what comes next, and the memory of this process."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + cpu_s, hard))
    if sys.platform == "linux":  # others do not enforce it
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, hard))


def _data_bytes() -> int:
    """Return the writable memory of this process, which RLIMIT_DATA limits."""
    status = Path("/proc/self/status")
    return int(status.read_text().split("VmData:")[1].split()[0]) << 10 if status.exists() else 0


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def main() -> None:
    """Serve the socket whose number is the first argument; the second one is the parent's process."""
    number, parent = map(int, sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this process
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _end_with(parent)
    with socket.socket(fileno=number) as connection, connection.makefile("rb") as requests:
        _work(requests, connection)


if __name__ == "__main__":
    main()
