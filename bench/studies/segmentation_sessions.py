"""Measure the effect of ONNX Runtime's session options on a worker, and the cost of starting one.

A container's CPU quota limits CPU time, not the number of CPUs: its threads may run on all CPUs of the computer until
the quota of the current 100 ms period is used up, and are then throttled. If permitted, the study sets such quotas on
its own processes. Usage: ``python -m bench.studies.segmentation_sessions``.
"""

import contextlib
import os
import queue
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from bench.markdown import table
from bench.measure import Case, Failure, measure, peak_bytes
from bench.segmentation.inputs import OUT, Network, jpegs, network
from core.image.decode import decode
from core.segmentation.registry import with_custom
from core.segmentation.segment import prepare, sufficient_px

_CGROUP: Final = Path("/sys/fs/cgroup")
_PERIOD_US: Final = 100_000
_MEGAPIXELS: Final = 1.5
_PICTURES: Final = 8
_ROUNDS: Final = 3
_INTERPRETERS: Final = 5
_PREPARED: Final = 2
"""Capacity of the queue of prepared pictures."""


@dataclass(frozen=True)
class Options:
    """Session options that differ from the defaults of ONNX Runtime."""

    threads: int = 0
    entries: tuple[tuple[str, str], ...] = ()
    attributes: tuple[tuple[str, Any], ...] = ()

    def open(self, path: Path) -> onnxruntime.InferenceSession:
        """Create a session for a network file."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        for key, value in self.entries:
            options.add_session_config_entry(key, value)
        for name, value in self.attributes:
            setattr(options, name, value)
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


_NO_SPINNING: Final = (("session.intra_op.allow_spinning", "0"),)
_SPINNING: Final = {
    "spinning": (),
    "spinning stopped after each run": (("session.force_spinning_stop", "1"),),
    "no spinning": _NO_SPINNING,
}
_DYNAMIC: Final = ("session.dynamic_block_base", "4")  # divides the rest of an operator into smaller and smaller blocks
_LEVELS: Final = onnxruntime.GraphOptimizationLevel
_OTHERS: Final = {
    "no memory arena": (("enable_cpu_mem_arena", False),),
    "no memory pattern": (("enable_mem_pattern", False),),
    "extended optimization": (("graph_optimization_level", _LEVELS.ORT_ENABLE_EXTENDED),),
    "basic optimization": (("graph_optimization_level", _LEVELS.ORT_ENABLE_BASIC),),
    "no optimization": (("graph_optimization_level", _LEVELS.ORT_DISABLE_ALL),),
}


def compare(networks: list[Network], dataset: Path | None) -> tuple[str, dict[str, Any]]:
    """Prepare pictures in a thread while the network runs, as the worker does, with each option and quota."""
    files = [path.read_bytes() for path in sorted(jpegs(_MEGAPIXELS, dataset, OUT / "pictures").iterdir())]
    cpu_count = os.cpu_count() or 1
    figures: dict[str, Any] = {}
    with ExitStack() as groups:
        quotas = {"none": None, **{f"{cpus:g} CPU": groups.enter_context(_quota(cpus)) for cpus in (1.0, 0.5)}}
        if refused := [name for name, group in quotas.items() if name != "none" and group is None]:
            print(f"CPU quotas cannot be set here; skipped: {', '.join(refused)}.", file=sys.stderr)
        for one in networks:
            cases = {
                f"{one.name}, quota {quota}, {name}": Case(_pipeline, (one, files, options, group), _ROUNDS)
                for quota, group in quotas.items()
                if group or quota == "none"
                for name, options in _variants(cpu_count, quotas=group is not None).items()
            }
            for name, outcome in measure(cases).items():
                figures[name] = (
                    {"failed": outcome.reason}
                    if isinstance(outcome, Failure)
                    else {
                        "pictures_per_s": _PICTURES / outcome.wall_s,
                        "cpu_s": outcome.cpu_s / _PICTURES,
                        **outcome.result,
                    }
                )
    rows = [
        [name, *(f"{row[key]:.3g}" if key in row else "failed" for key in ("pictures_per_s", "cpu_s", "load_s", "mb"))]
        for name, row in figures.items()
    ]
    return table(
        f"Pictures of {_MEGAPIXELS:g} MP, prepared in a parallel thread, on {cpu_count} CPUs",
        ["", "pictures per second", "CPU s per picture", "load, s", "peak memory, MB"],
        rows,
    ), figures


def _variants(cpu_count: int, *, quotas: bool) -> dict[str, Options]:
    variants = {
        f"{cpu_count} threads, {name}": Options(threads=cpu_count, entries=entries)
        for name, entries in _SPINNING.items()
    }
    if quotas:  # at most one CPU
        return {"1 thread": Options(threads=1), **variants}
    others = {name: Options(cpu_count, _NO_SPINNING, attributes) for name, attributes in _OTHERS.items()}
    return {**variants, "dynamic blocks": Options(cpu_count, (*_NO_SPINNING, _DYNAMIC)), **others}


@contextmanager
def _quota(cpus: float) -> Iterator[Path | None]:
    """Create a cgroup (v1 or v2) with a CPU quota; yield the file to join it with, or None without permission."""
    controller = _CGROUP / "cpu" if (_CGROUP / "cpu").is_dir() else _CGROUP
    group = controller / f"bench-{os.getpid()}-{cpus:g}"
    quota_us = round(cpus * _PERIOD_US)
    try:
        group.mkdir()
        if (group / "cpu.cfs_quota_us").exists():
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            (group / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")
    except OSError:
        yield None
        return
    try:
        yield group / "cgroup.procs"
    finally:
        with contextlib.suppress(OSError):  # the kernel may still count a process that has ended
            group.rmdir()


def _pipeline(one: Network, files: list[bytes], options: Options, group: Path | None) -> Callable[[], dict[str, float]]:
    if group:
        group.write_text(str(os.getpid()))
    started = time.perf_counter()
    session = options.open(one.path)
    load_s = time.perf_counter() - started
    registry = with_custom(one.custom)
    side = sufficient_px(one.name, registry)
    [entry] = session.get_inputs()

    def call() -> dict[str, float]:
        prepared: queue.Queue[NDArray[np.float32]] = queue.Queue(_PREPARED)

        def work() -> None:
            for number in range(_PICTURES):
                rgb = decode(files[number % len(files)], at_least_px=side).rgb
                prepared.put(np.asarray(prepare(rgb, one.name, registry).pixels, np.float32))

        thread = threading.Thread(target=work)
        thread.start()
        for _ in range(_PICTURES):
            session.run(None, {entry.name: prepared.get()[None]})
        thread.join()
        return {"load_s": load_s, "mb": peak_bytes() / 2**20}

    call()
    return call


# Not ru_maxrss on Linux, where it starts with the peak of the parent process.
_REPORT: Final = (
    "elapsed = time.perf_counter() - start; import os, pathlib, resource; used = os.times();"
    " status = pathlib.Path('/proc/self/status');"
    " mb = int(status.read_text().split('VmHWM:')[1].split()[0]) / 1024 if status.exists()"
    " else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20;"
    " print(elapsed, used.user + used.system, mb)"
)


def start(networks: list[Network], _dataset: Path | None) -> tuple[str, dict[str, Any]]:
    """Time imports and the loading of a network in new interpreters: ONNX Runtime alone, core, and rembg."""
    starts = {
        "import onnxruntime": "import onnxruntime",
        "import core.segmentation.sessions and onnxruntime": "import core.segmentation.sessions, onnxruntime",
        "import rembg": "import rembg",
    }
    for one in networks:
        path = str(one.path)
        starts |= {
            f"{one.name}: onnxruntime": f"import onnxruntime; onnxruntime.InferenceSession({path!r})",
            f"{one.name}: core.segmentation.sessions": (
                "from pathlib import Path; from core.segmentation.registry import with_custom;"
                " from functions.runtime import cgroup; from functions.runtime.weights import ModelSource;"
                " from core.segmentation.sessions import Networks;"
                f" source = ModelSource((Path({path!r}).parent,), registry=with_custom({one.custom!r}));"
                f" Networks(source, threads=cgroup.cpus()).load({one.name!r})"
            ),
            f"{one.name}: rembg.new_session": (
                f"import os; os.environ['U2NET_HOME'] = {str(one.path.parent)!r}; import rembg;"
                f" rembg.new_session('u2net_custom', model_path={path!r})"
            ),
        }
    figures: dict[str, list[float]] = {}
    runs: dict[str, list[list[float]]] = {name: [] for name in starts}
    for _ in range(_INTERPRETERS):
        for name, code in starts.items():
            whole = f"import time; start = time.perf_counter(); {code}; {_REPORT}"
            ran = subprocess.run([sys.executable, "-c", whole], check=True, capture_output=True, text=True)  # noqa: S603
            runs[name].append([float(word) for word in ran.stdout.split()])
    for name, measured in runs.items():
        figures[name] = [statistics.median(column) for column in zip(*measured, strict=True)]
    rows = [[name, f"{wall:.2f}", f"{cpu:.2f}", f"{mb:.0f}"] for name, (wall, cpu, mb) in figures.items()]
    return table("Start of a new interpreter", ["", "seconds", "CPU seconds", "peak memory, MB"], rows), figures


def main() -> None:
    """Print both tables for u2netp."""
    networks = [network("u2netp")]
    print(compare(networks, None)[0], start(networks, None)[0], sep="\n\n")


if __name__ == "__main__":
    main()
