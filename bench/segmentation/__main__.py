"""Compare the speed and the masks of our worker with those of ``rembg p`` and rembg's server.

All sides read the same photographs and the same ONNX file. ``bench.measure`` times them in separate processes and in
turns. Usage: ``make bench-segmentation [PARTS="throughput masks"] [NETWORKS=u2net] [DATASET=folder]``. Prints tables,
and writes them and the figures as JSON to ``out/bench-segmentation/``.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any, Final, TypeAlias

import onnxruntime

from bench import platform_info
from bench.markdown import table
from bench.measure import Case, Failure, Measurement, measure
from bench.segmentation import masks, peer, stages, worker
from bench.segmentation.inputs import OUT, Network, half, jpegs, network
from core.segmentation.registry import MODELS
from core.segmentation.sessions import Device

_MEGAPIXELS: Final = (1.5, 12.0)
_ROUNDS: Final = 3
_GRID_ROUNDS: Final = 2
_BATCHES: Final = (1, 2, 4, 8, 16)
_WORKER: Final = "our worker"
_PICTURES: Final = 12
_WORKER_PICTURES: Final = {Device.CPU: 16, Device.CUDA: 256}
_STAGES: Final = ("before", "network", "after", "shares", "MB added")
_FEW, _MORE = 1, 5
"""Numbers of pictures in two runs of ``rembg p``. The difference of their times excludes the start of the process."""

Figures: TypeAlias = dict[str, Any]
Part: TypeAlias = Callable[[list[Network], Path | None], tuple[str, Figures]]


def main() -> None:
    """Run the benchmark, print the tables, and write all files."""
    parser = argparse.ArgumentParser(prog="bench.segmentation", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=list(_PARTS), help="Parts to run. Default: all.")
    parser.add_argument("--networks", nargs="+", choices=MODELS, default=["u2netp"], help="Default: u2netp.")
    parser.add_argument("--dataset", type=Path, help="Folder of photographs. Default: four of scikit-image's.")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    networks = [network(name) for name in arguments.networks]
    print(f"Platform: {platform_info.describe()}, onnxruntime {version('onnxruntime')}.")
    for part in arguments.parts:
        print(f"{part} ...", file=sys.stderr)
        report, figures = _PARTS[part](networks, arguments.dataset)
        name = f"{part}-{'-'.join(arguments.networks)}"
        (OUT / f"{name}.md").write_text(f"{report}\n")
        (OUT / f"{name}.json").write_text(json.dumps({"platform": platform_info.describe(), **figures}, indent=2))
        print(f"\n{report}")


def _throughput(networks: list[Network], dataset: Path | None) -> tuple[str, Figures]:
    """Measure the throughput of the worker, ``rembg p``, and rembg's server."""
    figures: dict[str, dict[str, float | str]] = {}
    columns = []
    for one in networks:
        with peer.server(one) as url:
            for megapixels in _MEGAPIXELS:
                folder = jpegs(megapixels, dataset, OUT / "pictures")
                columns.append(f"{one.name}, {megapixels:g} MP")
                figures[columns[-1]] = _rates(measure(_throughput_cases(one, folder, url)))
    rows = [[name, *(_relative(figures[column], name) for column in columns)] for name in figures[columns[0]]]
    return table("Pictures per second (our worker's as a multiple)", ["", *columns], rows), figures


def _throughput_cases(one: Network, folder: Path, url: str) -> dict[str, Case]:
    cases = {_WORKER: Case(worker.prepare, (one, folder, _PICTURES), _ROUNDS)}
    for only_mask, wanted in ((True, "mask"), (False, "cut-out")):
        folder_to_folder = partial(peer.command_line, only_mask=only_mask)
        for pictures in (_FEW, _MORE):
            cases[f"rembg p, {wanted}, {pictures}"] = Case(folder_to_folder, (one, folder, pictures), _ROUNDS)
        for clients in (1, 2):
            posts = partial(peer.requests, only_mask=only_mask, clients=clients)
            cases[f"rembg s, {wanted}, clients: {clients}"] = Case(posts, (url, one, folder, _MORE), _ROUNDS)
    return cases


def _rates(measured: Mapping[str, Measurement]) -> dict[str, float | str]:
    """Return pictures per second, or the reason of a failure. The start of ``rembg p`` has a separate row."""
    rates: dict[str, float | str] = {}
    for name, outcome in measured.items():
        side, _, rest = name.partition(", ")
        if isinstance(outcome, Failure):
            rates[name] = outcome.reason
        elif side == _WORKER:
            rates[name] = _PICTURES / outcome.wall_s
        elif side == "rembg s":
            rates[name] = _MORE / outcome.wall_s
        elif name.endswith(f", {_MORE}"):
            wanted = rest.removesuffix(f", {_MORE}")
            fewer = measured[f"{side}, {wanted}, {_FEW}"]
            if isinstance(fewer, Failure):
                continue
            picture_s = (outcome.wall_s - fewer.wall_s) / (_MORE - _FEW)
            rates[f"{side}, {wanted}"] = 1 / picture_s
            rates[f"{side}, {wanted}: start, seconds"] = fewer.wall_s - _FEW * picture_s
    return rates


def _relative(rates: Mapping[str, float | str], name: str) -> str:
    rate, ours = rates.get(name), rates[_WORKER]
    if not isinstance(rate, float):
        return "failed"
    if name == _WORKER or name.endswith("seconds") or not isinstance(ours, float):
        return f"{rate:.2f}"
    return f"{rate:.2f} ({ours / rate:.1f})"


def _stages(networks: list[Network], dataset: Path | None) -> tuple[str, Figures]:
    """Measure the time per picture before, in, and after the network."""
    figures: Figures = {}
    rows = []
    for one in networks:
        for megapixels in _MEGAPIXELS:
            arguments = (one, jpegs(megapixels, dataset, OUT / "pictures"), 4)
            cases = {
                "ours": Case(stages.ours, arguments, _ROUNDS),
                "rembg, mask": Case(partial(stages.rembgs, only_mask=True), arguments, _ROUNDS),
                "rembg, cut-out": Case(partial(stages.rembgs, only_mask=False), arguments, _ROUNDS),
            }
            for name, outcome in measure(cases).items():
                title = f"{one.name}, {megapixels:g} MP, {name}"
                rows.append([title, *_parts(outcome)])
                figures[title] = _as_json(outcome)
    return table("Milliseconds per picture", ["", *_STAGES], rows), figures


def _batches(networks: list[Network], dataset: Path | None) -> tuple[str, Figures]:
    """Measure throughput by batch size in fp32 and fp16, on the CPU and, if available, on a GPU."""
    folder = jpegs(_MEGAPIXELS[-1], dataset, OUT / "pictures")
    devices = [Device.CPU]
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        devices.append(Device.CUDA)
    figures: Figures = {}
    rows = []
    for device, one, precision, batch in product(devices, networks, ("fp32", "fp16"), _BATCHES):
        file = half(one, OUT / "networks") if precision == "fp16" else one
        name, pictures = f"{device}, {one.name}, {precision}, {batch}", _WORKER_PICTURES[device]
        network_alone = Case(stages.ours, (file, folder, max(_BATCHES), batch, device), _GRID_ROUNDS)
        whole_worker = Case(worker.prepare, (file, folder, pictures, batch, device), _GRID_ROUNDS)
        # One at a time, because a GPU's memory cannot hold both.
        [alone] = measure({name: network_alone}).values()
        [whole] = measure({name: whole_worker}).values()
        network_rate = "failed" if isinstance(alone, Failure) else f"{1 / alone.result.network:.1f}"
        worker_rate = "failed" if isinstance(whole, Failure) else f"{pictures / whole.wall_s:.1f}"
        rows.append([name, network_rate, worker_rate, *_parts(alone)[:-1]])
        figures[name] = {
            "stages": _as_json(alone),
            "worker_s": whole.reason if isinstance(whole, Failure) else whole.wall_s,
        }
    heads = ["device, network, precision, batch", "network alone", "worker", *_STAGES[:-1]]
    report = table(f"Pictures of {_MEGAPIXELS[-1]:g} MP per second; milliseconds per picture", heads, rows)
    no_gpu = "\n\nNo GPU was measured: this build of ONNX Runtime has no CUDA."
    return report if Device.CUDA in devices else report + no_gpu, figures


def _parts(outcome: Measurement) -> list[str]:
    if isinstance(outcome, Failure):
        return ["failed", *["-"] * (len(_STAGES) - 1)]
    result = outcome.result
    return [*(f"{1000 * part:.1f}" for part in result), result.shares(), f"{outcome.peak_bytes / 1e6:.0f}"]


def _as_json(outcome: Measurement) -> Any:
    return outcome.reason if isinstance(outcome, Failure) else outcome.result._asdict()


_PARTS: Final[dict[str, Part]] = {
    "throughput": _throughput,
    "stages": _stages,
    "batches": _batches,
    "masks": masks.compare,
}


if __name__ == "__main__":
    main()
