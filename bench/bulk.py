"""Compare ``pbr bulk`` with ``rembg p``, folder to folder, and watch the memory of a long run.

Both commands process the same photographs with u2netp on the same machine, in turns. Each round has new pictures,
because the stack would serve known ones from its cache. ``pbr bulk`` refines at precision ``high``, and at
``standard``, which has no second look at doubtful pictures; ``rembg p`` does no matting. The stack is an embedded cloud
that has processed a few pictures before. Its memory is watched during a run of many small pictures. Only 500 of them
differ, and the cache serves the others, so that segmentation and matting take little of the time.
Usage: ``make bench-bulk [PICTURES=24] [ROUNDS=3] [MANY=10000] [DATASET=folder]``. Writes ``out/bench-bulk/``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import psutil

from bench import platform_info
from bench.embedded import ROOT, EmbeddedProcess, embedded_process
from bench.markdown import table
from bench.segmentation import peer
from bench.segmentation.inputs import enlarged, jpeg, network, photographs_of
from client.commands import up
from core.options import Host
from core.segmentation.registry import BUNDLED, CLASSICAL
from embedded_cloud.cloud import EmbeddedCloud

OUT: Final = ROOT / "out" / "bench-bulk"
_MEGAPIXELS: Final = (0.3, 0.7, 0.3, 1.0, 0.3, 0.7, 0.5, 6.0)
"""Sizes of the pictures, in turns: those of a shop, with some photographs as cameras take them."""

_SMALL_MEGAPIXELS: Final = 0.01
_DISTINCT: Final = 500  # of the long run; the others are served from the cache
_WARM_UP: Final = 4
_SAMPLE_S: Final = 1.0
_SAMPLES: Final = 10


@dataclass(frozen=True)
class Round:
    """Seconds of the commands for the same pictures: ``pbr bulk`` at two precision levels, and ``rembg p``."""

    high_s: float
    standard_s: float
    rembg_s: float


@dataclass(frozen=True)
class Sample:
    """Memory at a time of the long run, in MB.

    Attributes:
        seconds: since the start.
        results: that were written.
        cloud: the embedded cloud itself.
        functions: its processes.
        client: ``pbr bulk``.
    """

    seconds: float
    results: int
    cloud: int
    functions: int
    client: int


def main() -> None:
    """Run both parts, print tables, and write them and the figures as JSON."""
    parser = argparse.ArgumentParser(prog="bench.bulk", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=int, default=24, help="Pictures of a round; 0 skips this part.")
    parser.add_argument("--rounds", type=int, default=3, help="Rounds of both commands.")
    parser.add_argument("--many", type=int, default=10_000, help="Small pictures of the long run; 0 skips this part.")
    parser.add_argument("--dataset", type=Path, help="Folder of photographs. Default: four of scikit-image's.")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    figures: dict[str, object] = {"platform": platform_info.describe()}
    reports = []
    if arguments.pictures:
        rounds = compare(arguments.pictures, arguments.rounds, arguments.dataset)
        figures["rounds"] = [asdict(one) for one in rounds]
        reports.append(_compared(rounds, arguments.pictures))
    if arguments.many:
        samples = watch(arguments.many, arguments.dataset)
        figures["samples"] = [asdict(one) for one in samples]
        reports.append(_watched(samples))
    report = "\n\n".join([f"Platform: {figures['platform']}.", *reports])
    (OUT / "report.md").write_text(f"{report}\n")
    (OUT / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(report)


def compare(pictures: int, rounds: int, dataset: Path | None) -> list[Round]:
    """Time both commands in turns on new pictures."""
    one = network(BUNDLED)
    timed = []
    with _cloud(BUNDLED) as cloud, tempfile.TemporaryDirectory() as scratch:
        for number in range(rounds + 1):  # the first round warms up
            source = _folder(Path(scratch, f"{number}"), pictures if number else _WARM_UP, number, dataset)
            calls: dict[str, Callable[[], object]] = {
                "high_s": partial(_pbr_bulk, cloud, source, Path(scratch, f"{number}-high"), "high"),
                "rembg_s": partial(peer.remove_folder, one, source, Path(scratch, f"{number}-rembg")),
                "standard_s": partial(_pbr_bulk, cloud, source, Path(scratch, f"{number}-standard"), "standard"),
            }
            turns = list(calls)[number % 3 :] + list(calls)[: number % 3]
            timed.append(Round(**{name: _seconds(calls[name]) for name in turns}))
    return timed[1:]


def watch(pictures: int, dataset: Path | None) -> list[Sample]:
    """Process small pictures with the classical segmenter, and return samples of the memory at each tenth of them."""
    samples: list[Sample] = []
    ended = threading.Event()
    with _cloud(CLASSICAL) as cloud, tempfile.TemporaryDirectory() as scratch:
        source, target = _many(Path(scratch, "in"), pictures, dataset), Path(scratch, "out")
        with ThreadPoolExecutor(1) as pool:
            sampling = pool.submit(_sample, cloud, target, pictures, samples, ended)
            try:
                _pbr_bulk(cloud, source, target)
            finally:
                ended.set()
            sampling.result()
    return samples


def _cloud(model: str) -> AbstractContextManager[EmbeddedProcess]:
    return embedded_process(up.stack_parameters(up.choose_model(model), Host.AUTO, all_hosts=False))


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _pbr_bulk(cloud: EmbeddedProcess, source: Path, target: Path, precision: str = "high") -> None:
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": cloud.endpoint_url,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
    }
    command = [sys.executable, "-m", "client.cli", "bulk", str(source), "--out", str(target), "--quiet"]
    command += ["--precision", precision, "--stack", EmbeddedCloud.stack_name, "--region", cloud.region]
    subprocess.run(command, check=True, env=environment, cwd=ROOT)  # noqa: S603  fixed command of this project


def _folder(target: Path, pictures: int, seed: int, dataset: Path | None) -> Path:
    """Write pictures of several sizes as JPEG files that no other seed gives."""
    target.mkdir(parents=True)
    photographs = [rgb for _, rgb in islice(photographs_of(dataset), pictures)]
    for number, megapixels in enumerate(islice(cycle(_MEGAPIXELS), pictures)):
        picture = enlarged(photographs[number % len(photographs)], megapixels)
        noise = np.random.default_rng([seed, number]).integers(-2, 3, picture.shape)
        picture = (picture + noise).clip(0, 255).astype(np.uint8)
        (target / f"{number:03}.jpg").write_bytes(jpeg(picture))
    return target


def _many(target: Path, pictures: int, dataset: Path | None) -> Path:
    """Write small pictures as PNG files, ``_DISTINCT`` different ones in turns."""
    target.mkdir(parents=True)
    small = [enlarged(rgb, _SMALL_MEGAPIXELS) for _, rgb in photographs_of(dataset)]
    for number in range(pictures):
        picture = small[number % len(small)].copy()
        picture[0, 0] = [number % _DISTINCT % 256, number % _DISTINCT // 256, 0]
        cv2.imwrite(str(target / f"{number:06}.png"), picture)
    return target


def _sample(cloud: EmbeddedProcess, target: Path, pictures: int, samples: list[Sample], ended: threading.Event) -> None:
    started = time.monotonic()
    while not ended.wait(_SAMPLE_S):
        results = sum(1 for _ in target.glob("*.png")) if target.exists() else 0
        if results * _SAMPLES >= pictures * (len(samples) + 1):
            samples.append(_now(cloud, time.monotonic() - started, results))


def _now(cloud: EmbeddedProcess, seconds: float, results: int) -> Sample:
    server = psutil.Process(cloud.pid)
    functions = sum(map(_mb, server.children(recursive=True)))
    client = sum(_mb(child) for child in psutil.Process().children() if child.pid != cloud.pid)
    return Sample(seconds, results, _mb(server), functions, client)


def _mb(process: psutil.Process) -> int:
    try:
        return round(process.memory_full_info().pss / 1e6)
    except psutil.Error:
        return 0


def _compared(rounds: Sequence[Round], pictures: int) -> str:
    def row(name: str, part: Callable[[Round], float]) -> list[str]:
        seconds = [part(one) for one in rounds]
        ratios = [part(one) / one.rembg_s for one in rounds]
        rate = 60 * pictures / statistics.median(seconds)
        low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
        return [name, f"{statistics.median(seconds):.1f}", f"{rate:.0f}", f"{middle:.2f} ({low:.2f} to {high:.2f})"]

    rows = [
        row("pbr bulk, high", lambda one: one.high_s),
        row("pbr bulk, standard", lambda one: one.standard_s),
        row("rembg p, no matting", lambda one: one.rembg_s),
    ]
    heads = ["", "seconds", "images per minute", "time / rembg p"]
    title = f"{pictures} pictures of {min(_MEGAPIXELS):g} to {max(_MEGAPIXELS):g} MP, medians of {len(rounds)} rounds"
    return table(title, heads, rows)


def _watched(samples: Sequence[Sample]) -> str:
    rows = [
        [str(one.results), f"{60 * one.results / one.seconds:.0f}", str(one.cloud), str(one.functions), str(one.client)]
        for one in samples
    ]
    heads = ["results", "per minute", "cloud, MB", "functions, MB", "pbr bulk, MB"]
    return table(f"Proportional set size while pictures of {_SMALL_MEGAPIXELS:g} MP are processed", heads, rows)


if __name__ == "__main__":
    main()
