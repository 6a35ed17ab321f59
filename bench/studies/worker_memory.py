"""Measure the resident memory of the ECS worker over thousands of pictures, with in-memory AWS fakes.

The pictures vary in size, the batches vary up to the maximum, and some jobs use the built-in segmenter. Memory is read
when the queue is empty. Usage: ``python -m bench.studies.worker_memory [--images 10000]``.
"""

import argparse
import json
import logging
import tempfile
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.measure import resident_bytes
from bench.segmentation.cloud_in_memory import Cloud
from functions.runtime.handler import logger
from functions.runtime.store import Store
from functions.segment.ecs.worker import Worker, WorkerConfig

_SIDE: Final = 320
_READ_AFTER: Final = (0.05, 0.2, 0.5, 1.0)
_CLASSICAL_EACH: Final = 50
_LONG_SIDES: Final = (96, 150, 240, 333, 480, 700, 1100, 1600, 3000)


def main() -> None:
    """Print the resident memory after increasing shares of the pictures, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000, help="Number of jobs, e.g. 10000.")
    parser.add_argument(
        "--models", type=int, default=1, help="Number of networks that alternate; the worker keeps one loaded."
    )
    parser.add_argument("--batch", type=int, default=4, help="Largest batch, e.g. 4.")
    arguments = parser.parse_args()
    logger.setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(_soak(Path(folder), arguments.images, arguments.models, arguments.batch), indent=2))


def _soak(folder: Path, images: int, models: int, batch: int) -> dict[str, Any]:
    custom = [_install(folder, f"network-{number}", seed=number) for number in range(models)]
    cloud = Cloud(_pictures())
    config = WorkerConfig(
        work_bucket="work",
        queue_url="memory",
        pbr_model_dir=str(folder),
        pbr_custom_models=json.dumps(custom),
        pbr_batch=batch,
    )
    worker = Worker(config, Store(cloud), cloud, cloud)  # type: ignore[arg-type]
    running = threading.Thread(target=worker.run)
    running.start()
    sent, started = 0, time.perf_counter()
    readings: list[dict[str, float]] = []
    for share in _READ_AFTER:
        until = round(share * images)
        for number in range(sent, until):
            cloud.send(number, "classical" if number % _CLASSICAL_EACH == 0 else f"network-{number % models}")
        for _ in range(sent, until):
            cloud.wait()
        sent = until
        readings.append({"images": sent, "resident_mib": round(resident_bytes() / 2**20, 1)})
    seconds = time.perf_counter() - started
    worker.stop()
    running.join()
    return {
        "images": images,
        "failed": len(cloud.failures),
        "models": models,
        "batch": batch,
        "seconds": round(seconds),
        "readings": readings,
    }


def _pictures() -> dict[str, bytes]:
    """Return pictures of a disc on a textured background in many sizes, as JPEG and PNG."""
    files = {}
    for number, long_side in enumerate(_LONG_SIDES):
        height, width = round(long_side * (0.5 + 0.05 * number)), long_side
        grain = np.random.default_rng(number).integers(20, 70, (height // 4, width // 4, 3), np.uint8)
        rgb = cv2.resize(grain, (width, height))
        cv2.circle(rgb, (width // 2, height // 2), height // 3, (60, 120, 240), -1)
        for suffix in ("jpg", "png") if long_side < 1000 else ("jpg",):
            files[f"{long_side}.{suffix}"] = cv2.imencode(f".{suffix}", rgb)[1].tobytes()
    return files


def _install(folder: Path, name: str, *, seed: int) -> dict[str, Any]:
    """Write a small network and return its entry for PBR_CUSTOM_MODELS."""
    rng = np.random.default_rng(seed)
    weights = {
        "first": rng.normal(0, 0.2, (16, 3, 3, 3)),
        "second": rng.normal(0, 0.1, (16, 16, 3, 3)),
        "last": np.abs(rng.normal(0, 0.1, (1, 16, 1, 1))),  # positive, so that every picture has foreground
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "first"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Conv", ["b", "second"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["d"]),
            helper.make_node("Conv", ["d", "last"], ["e"]),
            helper.make_node("Sigmoid", ["e"], ["mask"]),
        ],
        name,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, _SIDE, _SIDE])],
        [helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 1, _SIDE, _SIDE])],
        [numpy_helper.from_array(value.astype(np.float32), key) for key, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    (folder / f"{name}.onnx").write_bytes(content)
    return {
        "name": name,
        "uri": f"https://models.example.com/{name}.onnx",
        "sha256": sha256(content).hexdigest(),
        "bytes": len(content),
        "input_px": _SIDE,
    }


if __name__ == "__main__":
    main()
