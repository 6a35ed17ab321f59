"""What the limits on decoding cost Validate: ``python -m bench.studies.inspection [--rounds 15]``.

Decodes each file in place and in the child process, in turns, so that other work on the machine disturbs both alike.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from core.image.decode import decode
from functions.runtime.inspection import Inspector


def main() -> None:
    """Print the wall time of both, their difference, and the memory of the child."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    cv2.setNumThreads(1)
    inspector, small = Inspector(), files()["JPEG, 0.1 MP"]
    start_ms = _ms(lambda: inspector.inspect(small))
    print(f"start and first file: {start_ms:.0f} ms")
    print("| File | Bytes | In place, ms | In the child, ms | Added, median of pairs, ms |\n|---|---|---|---|---|")
    for name, data in files().items():
        pairs = [_pair(inspector, data, i) for i in range(rounds)]
        place, child = (statistics.median(times) for times in zip(*pairs, strict=True))
        added = statistics.median(b - a for a, b in pairs)
        print(f"| {name} | {len(data)} | {place:.1f} | {child:.1f} | {added:.1f} |")
    print(f"memory of the idle child: {_resident_mb(inspector):.0f} MB")
    inspector.close()


def files() -> dict[str, bytes]:
    """Return photograph-like files by name."""
    return {
        "JPEG, 0.1 MP": _file(360, 280, "JPEG"),
        "JPEG, 2 MP": _file(1600, 1200, "JPEG"),
        "JPEG, 12 MP": _file(4000, 3000, "JPEG"),
        "PNG, 1 MP": _file(1160, 860, "PNG"),
        "WebP, 2 MP": _file(1600, 1200, "WEBP"),
    }


def _file(width: int, height: int, pillow_name: str) -> bytes:
    small = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(buffer, pillow_name)
    return buffer.getvalue()


def _pair(inspector: Inspector, data: bytes, number: int) -> tuple[float, float]:
    """Return the milliseconds in place and in the child; every second time the child is first."""
    in_place, in_child = (lambda: decode(data, at_least_px=1)), (lambda: inspector.inspect(data))
    if number % 2:
        child, place = _ms(in_child), _ms(in_place)
    else:
        place, child = _ms(in_place), _ms(in_child)
    return place, child


def _ms(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - started)


def _resident_mb(inspector: Inspector) -> float:
    [pid] = inspector.pids
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) / 1000


if __name__ == "__main__":
    main()
