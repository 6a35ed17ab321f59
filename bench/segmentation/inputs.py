"""Inputs of the segmentation benchmark: photographs at two sizes, and network files for all sides."""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from skimage import data as photographs

from bench.pictures import DatasetError, grained
from client import local_models
from core.arrays import Rgb
from core.segmentation.registry import MODELS, with_custom
from core.segmentation.sessions import Device, Networks
from functions.runtime import cgroup
from functions.runtime.weights import ModelSource

OUT: Final = Path(__file__).parents[2] / "out" / "bench-segmentation"

_NOISE_LEVELS: Final = 3.0
_SUFFIXES: Final = {".jpg", ".jpeg", ".png"}
_DISTINCT: Final = 4
"""Number of different photographs per size; the files repeat them."""

_FILES: Final = 16
"""Number of files per size."""


@dataclass(frozen=True)
class Network:
    """A network file.

    Attributes:
        name: name of the model in the registry.
        path: the file, ``<name>.onnx``.
        custom: value of ``PBR_CUSTOM_MODELS``; empty for the networks of the registry.
    """

    name: str
    path: Path
    custom: str

    def source(self) -> ModelSource:
        """Return a model source that finds the file."""
        return ModelSource((self.path.parent,), timeout_s=0, registry=with_custom(self.custom))

    def loaded(self, device: Device = Device.CPU) -> Networks:
        """Load the network with the session options of the worker."""
        networks = Networks(self.source(), threads=cgroup.cpus(), device=device)
        networks.load(self.name)
        return networks


def network(name: str) -> Network:
    """Return a network of the registry. Its weights are downloaded if no directory of ``pbr models`` has them.

    Raises:
        WeightsUnavailableError, WeightsHashMismatchError: as ``ModelSource.path``.
    """
    return Network(name, ModelSource(local_models.directories()).path(name), "")


def described(path: Path) -> Network:
    """Return a file as a custom model with the registry entries of u2netp, except for its weights."""
    content = path.read_bytes()
    entry = {
        "name": path.stem,
        "uri": path.absolute().as_uri(),
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "input_px": MODELS["u2netp"].input_px,
        "memory_bytes": MODELS["u2netp"].memory_bytes,
    }
    return Network(path.stem, path, json.dumps([entry]))


def photographs_of(dataset: Path | None) -> Iterator[tuple[str, Rgb]]:
    """Yield names and photographs: those of a folder, or four of scikit-image's.

    Raises:
        DatasetError: the folder has no photographs.
    """
    if dataset is None:
        for name in ("chelsea", "coffee", "astronaut", "rocket"):
            yield name, getattr(photographs, name)()
        return
    paths = sorted(path for path in dataset.iterdir() if path.suffix.lower() in _SUFFIXES)
    pictures = {path.name: cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) for path in paths}
    if not pictures:
        raise DatasetError(f"{dataset} has no photographs. Store them as NAME.jpg or NAME.png.")
    yield from ((name, np.asarray(rgb, np.uint8)) for name, rgb in pictures.items() if rgb is not None)


def jpegs(megapixels: float, dataset: Path | None, folder: Path) -> Path:
    """Write photographs of the given size, with camera noise, as JPEG files; return their folder."""
    target = folder / f"{megapixels:g}mp"
    target.mkdir(parents=True, exist_ok=True)
    files = [jpeg(enlarged(rgb, megapixels)) for _, rgb in islice(photographs_of(dataset), _DISTINCT)]
    for number, content in enumerate(islice(cycle(files), _FILES)):
        (target / f"{number:02}.jpg").write_bytes(content)
    return target


def enlarged(rgb: Rgb, megapixels: float) -> Rgb:
    """Resize a picture, keeping its aspect ratio, and add camera noise."""
    height, width = rgb.shape[:2]
    scale = math.sqrt(megapixels * 1e6 / (height * width))
    size = round(width * scale), round(height * scale)
    kernel = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    return grained(np.asarray(cv2.resize(rgb, size, interpolation=kernel), np.uint8), _NOISE_LEVELS)


def jpeg(rgb: Rgb) -> bytes:
    """Encode a picture as JPEG."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()


def half(one: Network, folder: Path) -> Network:
    """Convert a network to half precision, including its inputs and outputs."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{one.path.stem}-fp16.onnx"
    if not path.exists():
        path.write_bytes(convert_float_to_float16(onnx.load(one.path)).SerializeToString())
    return described(path)
