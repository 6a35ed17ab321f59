"""ONNX Runtime sessions of segmentation networks, on a CPU or a GPU; the most recently used ones stay in memory."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from core.errors import GpuUnavailableError
from core.segmentation.registry import Model

_CUDA: Final = "CUDAExecutionProvider"
_CPU: Final = "CPUExecutionProvider"


class Device(StrEnum):
    """Device that networks run on."""

    CPU = "cpu"
    CUDA = "cuda"


class WeightSource(Protocol):
    """The models of a host and their weight files."""

    @property
    def registry(self) -> Mapping[str, Model]:
        """The networks by name, best first."""

    def path(self, name: str) -> Path:
        """Return the path of a network's verified ONNX file.

        Raises:
            InvalidOptionsError: the registry has no such network.
            WeightsHashMismatchError: the file is not the one that the registry pins.
            WeightsUnavailableError: the file is missing.
        """


class Networks:
    """Networks, loaded on first use; safe for use by several threads.

    Args:
        source: the networks and their weights.
        threads: CPU threads of each network.
        device: what they run on. There is no fallback to another device.
        most: number of networks kept in memory, the most recently used ones; a single one can hold gigabytes.
    """

    def __init__(self, source: WeightSource, *, threads: int, device: Device = Device.CPU, most: int = 1) -> None:
        self.source, self._threads, self._device, self._most = source, threads, device, most
        self._loaded: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, name: str) -> None:
        """Load a network before its first image.

        Raises:
            GpuUnavailableError: the device is a GPU, and none can be used.
            InvalidOptionsError, WeightsHashMismatchError, WeightsUnavailableError: see :meth:`WeightSource.path`.
        """
        self._session(name)

    def predict(self, name: str, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run a network on a batch.

        Args:
            name: of the network, in the registry.
            batch: N x 3 x S x S float32, S the network's input side.

        Returns:
            The first output, N x h x w float32. A network that was exported for another batch size runs several times.

        Raises:
            GpuUnavailableError, InvalidOptionsError, WeightsHashMismatchError, WeightsUnavailableError: as ``load``.
        """
        session = self._session(name)
        [entry, *_] = session.get_inputs()
        if entry.type == "tensor(float16)":
            batch = batch.astype(np.float16)
        step = entry.shape[0] if isinstance(entry.shape[0], int) else len(batch)
        outputs = []
        for start in range(0, len(batch), step):
            part = batch[start : start + step]
            filled = np.concatenate([part, np.repeat(part[-1:], step - len(part), axis=0)])
            outputs.append(session.run(None, {entry.name: filled})[0][: len(part), 0])
        return np.concatenate(outputs).astype(np.float32, copy=False)

    def _session(self, name: str) -> Any:
        with self._lock:
            if name not in self._loaded:
                path = self.source.path(name)
                while len(self._loaded) >= self._most:  # before loading, so that memory never holds more
                    self._loaded.popitem(last=False)
                self._loaded[name] = _open(path, self._device, self._threads)
            self._loaded.move_to_end(name)
            return self._loaded[name]


def _open(path: Path, device: Device, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # A waiting thread would spin, and take CPU time from decoding and from a container's quota.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if device is Device.CPU:
        options.enable_mem_pattern = False  # more memory, no less time: docs/explanation/performance.md
        return onnxruntime.InferenceSession(str(path), options, providers=[_CPU])

    if _CUDA not in onnxruntime.get_available_providers():
        raise _no_gpu("this build of ONNX Runtime has no CUDA")
    onnxruntime.preload_dlls()  # CUDA and cuDNN are in separate packages
    # The default search tries every algorithm again for each batch size.
    cuda = (_CUDA, {"cudnn_conv_algo_search": "HEURISTIC"})
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[cuda])
    except RuntimeError as error:
        raise _no_gpu(str(error)) from error
    if _CUDA not in session.get_providers():  # ONNX Runtime only logs it, and would run on the CPU
        raise _no_gpu("CUDA or its driver could not be loaded")
    session.disable_fallback()
    return session


def _no_gpu(why: str) -> GpuUnavailableError:
    return GpuUnavailableError(
        f"No GPU can be used: {why}",
        field="PBR_DEVICE",
        value=Device.CUDA.value,
        remedy="Run the image's gpu flavour on a machine with an NVIDIA GPU and its driver, or set PBR_DEVICE=cpu.",
    )
