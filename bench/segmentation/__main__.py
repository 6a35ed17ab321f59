"""How fast segmentation is, and how near to rembg's: our worker against ``rembg p`` and rembg's server; its parts.

All sides read the same photographs and the same ONNX file. What is timed runs in processes of its own, in turns; see
``bench.measure``. Run it with ``make bench-segmentation [PARTS="throughput masks"] [NETWORKS=u2net] [DATASET=folder]``;
it prints its tables, and writes them and the figures as JSON to ``out/bench-segmentation/``.
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

from bench import machine
from bench.markdown import table
from bench.measure import Failure, Job, Measurement, measure
from bench.segmentation import masks, peer, stages, u2net, worker
from bench.segmentation.inputs import OUT, Network, half, jpegs, network
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
"""Pictures of two runs of ``rembg p``, the difference of which leaves its start out."""

Figures: TypeAlias = dict[str, Any]
Part: TypeAlias = Callable[[list[Network], Path | None], tuple[str, Figures]]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="bench.segmentation", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=list(_PARTS))
    parser.add_argument("--networks", nargs="+", choices=u2net.NETWORKS, default=["u2netp"])
    parser.add_argument("--dataset", type=Path, help="a folder of photographs")
    asked = parser.parse_args()
    networks = [network(name, OUT / "networks") for name in asked.networks]
    print(f"Machine: {machine.describe()}, onnxruntime {version('onnxruntime')}.")
    for part in asked.parts:
        print(f"{part} ...", file=sys.stderr)
        report, figures = _PARTS[part](networks, asked.dataset)
        name = f"{part}-{'-'.join(asked.networks)}"
        (OUT / f"{name}.md").write_text(f"{report}\n")
        (OUT / f"{name}.json").write_text(json.dumps({"machine": machine.describe(), **figures}, indent=2))
        print(f"\n{report}")


def _throughput(networks: list[Network], dataset: Path | None) -> tuple[str, Figures]:
    """Pictures per second of whole processes."""
    figures: dict[str, dict[str, float | str]] = {}
    columns = []
    for one in networks:
        with peer.server(one) as url:
            for megapixels in _MEGAPIXELS:
                folder = jpegs(megapixels, dataset, OUT / "pictures")
                columns.append(f"{one.name}, {megapixels:g} MP")
                figures[columns[-1]] = _rates(measure(_throughput_jobs(one, folder, url)))
    rows = [[name, *(_relative(figures[column], name) for column in columns)] for name in figures[columns[0]]]
    return table("Pictures per second, and how many times as many our worker does", ["", *columns], rows), figures


def _throughput_jobs(one: Network, folder: Path, url: str) -> dict[str, Job]:
    jobs = {_WORKER: Job(worker.prepare, (one, folder, _PICTURES), _ROUNDS)}
    for only_mask, wanted in ((True, "mask"), (False, "cut-out")):
        folder_to_folder = partial(peer.command_line, only_mask=only_mask)
        for pictures in (_FEW, _MORE):
            jobs[f"rembg p, {wanted}, {pictures}"] = Job(folder_to_folder, (one, folder, pictures), _ROUNDS)
        for clients in (1, 2):
            posts = partial(peer.requests, only_mask=only_mask, clients=clients)
            jobs[f"rembg s, {wanted}, clients: {clients}"] = Job(posts, (url, one, folder, _MORE), _ROUNDS)
    return jobs


def _rates(measured: Mapping[str, Measurement]) -> dict[str, float | str]:
    """Return pictures per second, or why there are none; of ``rembg p`` without its start, which has a row."""
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
    """Milliseconds before, in and after the network, for each picture."""
    figures: Figures = {}
    rows = []
    for one in networks:
        for megapixels in _MEGAPIXELS:
            arguments = (one, jpegs(megapixels, dataset, OUT / "pictures"), 4)
            jobs = {
                "ours": Job(stages.ours, arguments, _ROUNDS),
                "rembg, mask": Job(partial(stages.rembgs, only_mask=True), arguments, _ROUNDS),
                "rembg, cut-out": Job(partial(stages.rembgs, only_mask=False), arguments, _ROUNDS),
            }
            for name, outcome in measure(jobs).items():
                title = f"{one.name}, {megapixels:g} MP, {name}"
                rows.append([title, *_parts(outcome)])
                figures[title] = _plain(outcome)
    return table("Milliseconds for each picture", ["", *_STAGES], rows), figures


def _batches(networks: list[Network], dataset: Path | None) -> tuple[str, Figures]:
    """Pictures per second by size of batch, in fp32 and fp16, on a GPU if there is one."""
    folder = jpegs(_MEGAPIXELS[-1], dataset, OUT / "pictures")
    devices = [Device.CPU]
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        devices.append(Device.CUDA)
    figures: Figures = {}
    rows = []
    for device, one, precision, batch in product(devices, networks, ("fp32", "fp16"), _BATCHES):
        file = half(one, OUT / "networks") if precision == "fp16" else one
        name, pictures = f"{device}, {one.name}, {precision}, {batch}", _WORKER_PICTURES[device]
        network_alone = Job(stages.ours, (file, folder, max(_BATCHES), batch, device), _GRID_ROUNDS)
        whole_worker = Job(worker.prepare, (file, folder, pictures, batch, device), _GRID_ROUNDS)
        # One after the other: a GPU's memory does not hold them all.
        [alone] = measure({name: network_alone}).values()
        [whole] = measure({name: whole_worker}).values()
        network_rate = "failed" if isinstance(alone, Failure) else f"{1 / alone.result.network:.1f}"
        worker_rate = "failed" if isinstance(whole, Failure) else f"{pictures / whole.wall_s:.1f}"
        rows.append([name, network_rate, worker_rate, *_parts(alone)[:-1]])
        figures[name] = {
            "stages": _plain(alone),
            "worker_s": whole.reason if isinstance(whole, Failure) else whole.wall_s,
        }
    heads = ["device, network, precision, batch", "network alone", "worker", *_STAGES[:-1]]
    report = table(f"Pictures of {_MEGAPIXELS[-1]:g} MP per second; milliseconds for each", heads, rows)
    no_gpu = "\n\nThere is no GPU: this build of ONNX Runtime has no CUDA."
    return report if Device.CUDA in devices else report + no_gpu, figures


def _parts(outcome: Measurement) -> list[str]:
    if isinstance(outcome, Failure):
        return ["failed", *["-"] * (len(_STAGES) - 1)]
    result = outcome.result
    return [*(f"{1000 * part:.1f}" for part in result), result.shares(), f"{outcome.peak_bytes / 1e6:.0f}"]


def _plain(outcome: Measurement) -> Any:
    return outcome.reason if isinstance(outcome, Failure) else outcome.result._asdict()


_PARTS: Final[dict[str, Part]] = {
    "throughput": _throughput,
    "stages": _stages,
    "batches": _batches,
    "masks": masks.compare,
}


if __name__ == "__main__":
    main()
