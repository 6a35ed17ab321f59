"""What the benchmark of segmentation works on: photographs at two sizes, and network files that all sides read."""

import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from skimage import data as photographs

from bench.pictures import DatasetError, grained
from bench.segmentation import u2net
from core.segmentation.registry import MODELS, with_custom
from core.segmentation.sessions import Device, Networks
from core.types import Rgb
from functions.runtime import cgroup
from functions.runtime.weights import ModelSource

OUT: Final = Path(__file__).parents[2] / "out" / "bench-segmentation"

_NOISE_LEVELS: Final = 3.0
_SUFFIXES: Final = {".jpg", ".jpeg", ".png"}
_DISTINCT: Final = 4
"""Photographs that the files of one size are made of, in turns."""

_FILES: Final = 16
"""Files of one size: the most that one run of anything reads."""


@dataclass(frozen=True)
class Network:
    """A network's file, and what describes it to our processes.

    Attributes:
        name: what it is called there.
        path: the file, ``<name>.onnx``.
        custom: ``PBR_CUSTOM_MODELS``; empty for published weights, which the registry has.
    """

    name: str
    path: Path
    custom: str

    def source(self) -> ModelSource:
        """Return where our code finds it."""
        return ModelSource((self.path.parent,), timeout_s=0, registry=with_custom(self.custom))

    def loaded(self, device: Device = Device.CPU) -> Networks:
        """Return it in memory, loaded as our processes load it."""
        networks = Networks(self.source(), threads=cgroup.cpus(), device=device)
        networks.load(self.name)
        return networks


def network(name: str, folder: Path) -> Network:
    """Return the published network if ``PBR_MODEL_DIR`` has it, else one of its architecture with random weights.

    Args:
        name: one of :data:`bench.segmentation.u2net.NETWORKS`.
        folder: where the latter is written.
    """
    published = ModelSource(tuple(map(Path, filter(None, os.environ.get("PBR_MODEL_DIR", "").split(os.pathsep)))))
    if published.find(name):
        return Network(name, published.path(name), "")
    path = folder / f"random-{name}.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(u2net.build(name).SerializeToString())
    return described(path)


def described(path: Path, input_px: int = u2net.INPUT_PX) -> Network:
    """Return a file as a custom model, which differs from U^2-Net in its weights alone."""
    content = path.read_bytes()
    entry = {
        "name": path.stem,
        "uri": path.absolute().as_uri(),
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "input_px": input_px,
        "memory_bytes": MODELS["u2net"].memory_bytes,
    }
    return Network(path.stem, path, json.dumps([entry]))


def photographs_of(dataset: Path | None) -> Iterator[tuple[str, Rgb]]:
    """Return photographs and their names: those of a folder, or some of scikit-image's.

    Raises:
        DatasetError: the folder has none.
    """
    if dataset is None:
        for name in ("chelsea", "coffee", "astronaut", "rocket"):
            yield name, getattr(photographs, name)()
        return
    paths = sorted(path for path in dataset.iterdir() if path.suffix.lower() in _SUFFIXES)
    pictures = {path.name: cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) for path in paths}
    if not pictures:
        raise DatasetError(f"{dataset} has no photographs: they are expected as NAME.jpg or NAME.png")
    yield from ((name, np.asarray(rgb, np.uint8)) for name, rgb in pictures.items() if rgb is not None)


def jpegs(megapixels: float, dataset: Path | None, folder: Path) -> Path:
    """Return a folder of photographs enlarged to a size, as JPEG with a camera's noise."""
    target = folder / f"{megapixels:g}mp"
    target.mkdir(parents=True, exist_ok=True)
    files = [jpeg(enlarged(rgb, megapixels)) for _, rgb in islice(photographs_of(dataset), _DISTINCT)]
    for number, content in enumerate(islice(cycle(files), _FILES)):
        (target / f"{number:02}.jpg").write_bytes(content)
    return target


def enlarged(rgb: Rgb, megapixels: float) -> Rgb:
    """Return a picture at another size, its aspect ratio kept, with noise."""
    height, width = rgb.shape[:2]
    scale = math.sqrt(megapixels * 1e6 / (height * width))
    size = round(width * scale), round(height * scale)
    kernel = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    return grained(np.asarray(cv2.resize(rgb, size, interpolation=kernel), np.uint8), _NOISE_LEVELS)


def jpeg(rgb: Rgb) -> bytes:
    """Return a picture as a camera's file."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()


def half(one: Network, folder: Path) -> Network:
    """Return a network in half precision, what goes in and what comes out included."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    path = folder / f"{one.path.stem}-fp16.onnx"
    if not path.exists():
        path.write_bytes(convert_float_to_float16(onnx.load(one.path)).SerializeToString())
    return described(path)
