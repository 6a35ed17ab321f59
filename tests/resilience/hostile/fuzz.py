"""Hostile files through decoding, in processes of their own and under bounds: ``make fuzz``.

A file ends as a picture that keeps its promises, or as a permanent error that says what to do. It never ends its
process, never takes more memory or time than is stated here, and never does damage that only a C library's line tells.
"""

import argparse
import ctypes
import io
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from bench.measure import peak_bytes, resident_bytes
from core import limits
from core.arrays import Picture
from core.errors import PermanentError
from core.image import exif
from core.image.decode import decode
from core.options import Options
from core.pipeline import remove_background
from core.segmentation.registry import CLASSICAL
from core.segmentation.sessions import Networks
from core.types import Precision
from functions.runtime.weights import ModelSource
from tests.conftest import ROOT
from tests.resilience.hostile import corpus
from tests.resilience.hostile.mutations import Mutant, mutant

MEMORY_BYTES_PER_FILE_BYTE: Final = 4
MEMORY_BYTES_PER_PIXEL: Final = 16
MAX_FACTS_BYTES: Final = 3000
_SCALES_PX: Final = (None, 640, 1)
_JPEG: Final = b"\xff\xd8\xff"

_TIFF_COMPRESSION: Final = 259
_FAX_OR_JPEG: Final = (2, 3, 4, 7)

_PIPELINE_EVERY: Final = 25
_PIPELINE_PIXELS: Final = 300_000
_LIBC: Final = ctypes.CDLL(None)
_CONTEXT: Final = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Bounds:
    """What a file may take of its process.

    Attributes:
        memory_bytes: that it may add, besides those for each of its own and for each pixel that its header has within
            the limits. Pillow takes 64 MiB of a PNG's texts.
        limit_bytes: no allocation gets beyond them: what Validate has on AWS, less the interpreter.
        guard_s: a file that takes longer hangs. It is no promise about time, which other work on the machine would
            break.
    """

    memory_bytes: int = 80_000_000
    limit_bytes: int = 1_900_000_000
    guard_s: float = 90.0


_BOUNDS: Final = Bounds()


@dataclass(frozen=True)
class Outcome:
    """How one file ended: ``picture``, or an error's name; what is wrong with that, if anything; what it took."""

    key: Any
    description: str
    ended: str
    wrong: str | None
    cpu_s: float
    added_bytes: int


def mutated(seed: int, index: int) -> Mutant:
    return mutant(_seeds(), seed, index)


def named(name: str) -> Mutant:
    return Mutant(name, corpus.hostile()[name].make())


@cache
def _seeds() -> dict[str, bytes]:
    return corpus.seeds()


def examine(make: Callable[[Any], Mutant], keys: Sequence[Any], bounds: Bounds = _BOUNDS) -> Iterator[Outcome]:
    """Decode the file of each key; one that kills or holds up its process is an outcome too, and the others go on."""
    remaining = list(keys)
    while remaining:
        pipe, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_work, args=(theirs, make, remaining, bounds), daemon=True)
        process.start()
        theirs.close()
        try:
            pipe.recv()  # it has started; from here on a file is the cause
            while remaining:
                if not pipe.poll(bounds.guard_s):
                    yield Outcome(remaining.pop(0), "", "hung", f"nothing came for {bounds.guard_s:g} s", 0, 0)
                    break
                outcome = pipe.recv()
                remaining.pop(0)
                yield outcome
        except (EOFError, ConnectionError):
            process.join()
            yield Outcome(remaining.pop(0), "", "died", f"its process ended with {process.exitcode}", 0, 0)
        finally:
            process.kill()
            process.join()
            pipe.close()


def _work(pipe: Connection, make: Callable[[Any], Mutant], keys: Sequence[Any], bounds: Bounds) -> None:
    warnings.simplefilter("ignore")
    for data in _seeds().values():  # libraries load, and pools start, before anything is measured
        decode(data)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), sys.stderr.fileno())
        pipe.send(None)
        for i, key in enumerate(keys):
            made = make(key)
            heard = said.seek(0, io.SEEK_END)
            _LIBC.malloc_trim(0)  # what earlier files left would hide what this one takes
            _forget_peak()
            before, cpu = resident_bytes(), time.process_time()
            with _limited(bounds.limit_bytes):
                end = _decoded(made.data, whole=i % _PIPELINE_EVERY == 0)
            cpu_s, added = time.process_time() - cpu, max(0, peak_bytes() - before)
            wrong = end.wrong
            allowed = bounds.memory_bytes + MEMORY_BYTES_PER_FILE_BYTE * len(made.data)
            if added > allowed and added > allowed + MEMORY_BYTES_PER_PIXEL * _announced(made.data):
                wrong = wrong or f"it took {added / 1e6:.0f} MB"
            is_heard = said.seek(0, io.SEEK_END) > heard
            if is_heard and end.name == "picture" and not _has_scars(made.data):
                wrong = wrong or "what is wrong with it was said on stderr only"
            # Of an allocation that failed, each library says what it likes; without the limit it would not have failed.
            if end.said and _ended(made.data, None) != end:
                wrong = wrong or f"it wants more than {bounds.limit_bytes} bytes"
            pipe.send(Outcome(key, made.description, end.name, wrong, cpu_s, added))


@contextmanager
def _limited(more_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + more_bytes, hard))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@dataclass(frozen=True)
class _End:
    name: str
    said: str
    wrong: str | None = field(compare=False)


def _decoded(data: bytes, *, whole: bool) -> _End:
    """Return how a file ends, and what is wrong with that; if ``whole``, a small picture goes through all stages."""
    ends = [_ended(data, at_least_px) for at_least_px in (_SCALES_PX if data.startswith(_JPEG) else (None,))]
    wrong = next((end.wrong for end in ends if end.wrong), None)
    if len({end.name for end in ends}) > 1:
        wrong = wrong or f"one scale ends otherwise than another: {ends}"
    if whole and ends[0].name == "picture" and _announced(data) <= _PIPELINE_PIXELS:
        wrong = wrong or _broken_pipeline(data)
    return replace(ends[0], wrong=wrong)


def _ended(data: bytes, at_least_px: int | None) -> _End:
    try:
        picture = decode(data, at_least_px=at_least_px)
    except Exception as error:
        return _End(type(error).__name__, str(error), _broken_promise(error))
    return _End("picture", " ".join(picture.warnings), _broken_picture(picture, at_least_px))


def _broken_pipeline(data: bytes) -> str | None:
    options = Options(model=CLASSICAL, precision_level=Precision.DRAFT)
    try:
        remove_background(data, options, networks=Networks(ModelSource(()), threads=1))
    except Exception as error:
        return _broken_promise(error)
    return None


def _broken_promise(error: Exception) -> str | None:
    if not isinstance(error, PermanentError):
        return f"untyped: {error!r}"
    if isinstance(error.__cause__, MemoryError):
        return "an allocation failed"
    facts = error.facts()
    if not (facts["field"] and facts["remedy"] and facts["value"] is not None):
        return f"its error does not say all: {facts}"
    if len(json.dumps(facts, allow_nan=False)) > MAX_FACTS_BYTES:
        return "its error is too long"
    return None


def _broken_picture(picture: Picture, at_least_px: int | None) -> str | None:
    rgb, alpha, info = picture.rgb, picture.alpha, picture.info
    height, width = rgb.shape[:2]
    sound = {
        "array": rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3,
        "alpha": alpha is None or (alpha.dtype == np.float32 and alpha.shape == (height, width)),
        "alpha's range": alpha is None or (alpha.min() >= 0 and alpha.max() <= 1),
        "size": (height, width) == (info.height, info.width)
        or (at_least_px is not None and 8 * height >= info.height and 8 * width >= info.width),
        "limits": info.width * info.height <= limits.MAX_PIXELS and min(info.width, info.height) >= limits.MIN_SIDE_PX,
        "EXIF data": picture.exif is None or len(picture.exif) <= exif.MAX_BYTES,
        "warnings": all(len(warning) < 200 for warning in picture.warnings),
    }
    broken = [name for name, is_sound in sound.items() if not is_sound]
    return f"wrong {', '.join(broken)}: {rgb.shape}, {info}" if broken else None


def _has_scars(data: bytes) -> bool:
    """Tell whether damaged pixels decode to something: libjpeg and libtiff say so to stderr, and to nobody else."""
    if data.startswith(_JPEG):
        return True
    with Image.open(io.BytesIO(data)) as image:
        return getattr(image, "tag_v2", {}).get(_TIFF_COMPRESSION) in _FAX_OR_JPEG


def _announced(data: bytes) -> int:
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = image.width * image.height
    except Exception:  # whatever a parser says of it: then nothing is allowed for pixels
        return 0
    return pixels if pixels <= limits.MAX_PIXELS else 0


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _data_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmData:")[1].split()[0]) * 1024


def main() -> None:
    """Fuzz, print what came of it, and keep what is wrong under ``out/fuzz``; the exit status is 1 if anything is."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.perf_counter()
    make, processes = partial(mutated, arguments.seed), os.cpu_count() or 1
    shares = [range(i, arguments.files, processes) for i in range(processes)]
    with ThreadPoolExecutor(processes) as pool:
        outcomes = [outcome for share in pool.map(lambda keys: list(examine(make, keys)), shares) for outcome in share]
    wall_s = time.perf_counter() - started
    for ended, count in Counter(outcome.ended for outcome in outcomes).most_common():
        print(f"{count:8} {ended}")
    slowest, largest = max(outcomes, key=lambda o: o.cpu_s), max(outcomes, key=lambda o: o.added_bytes)
    print(f"{len(outcomes)} files, seed {arguments.seed}, {processes} processes: {wall_s:.0f} s")
    print(f"most CPU: {slowest.cpu_s:.2f} s, file {slowest.key} ({slowest.description})")
    print(f"most memory: {largest.added_bytes / 1e6:.0f} MB, file {largest.key} ({largest.description})")
    wrong = [outcome for outcome in outcomes if outcome.wrong]
    for outcome in wrong:
        kept = ROOT / "out/fuzz" / f"{arguments.seed}-{outcome.key}"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(make(outcome.key).data)
        print(f"WRONG: {outcome.wrong} ({mutated(arguments.seed, outcome.key).description}); kept as {kept}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
