"""Measure the time of a segmentation before, in, and after the network.

The first part decodes, resizes, and normalizes; the last converts the prediction to a mask and encodes it. Runs without
concurrency, so that the parts add up to the total.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import onnxruntime

from bench.segmentation.inputs import Network
from core.image.decode import decode
from core.image.encode import encode_plane
from core.segmentation.segment import Prepared, finish, predict, prepare, sufficient_px
from core.segmentation.sessions import Device


class Stages(NamedTuple):
    """Seconds per picture."""

    before: float
    network: float
    after: float

    @property
    def total(self) -> float:
        """Seconds per picture without concurrency."""
        return sum(self)

    def shares(self) -> str:
        """Return the shares of the total in percent, as text."""
        return " / ".join(f"{part / self.total:.0%}" for part in self)


def ours(
    network: Network, folder: Path, pictures: int, batch: int = 1, device: Device = Device.CPU
) -> Callable[[], Stages]:
    """Load a network, and return a call that segments pictures in the same way as the worker."""
    files, networks = _files(folder, pictures), network.loaded(device)
    registry = networks.source.registry

    def prepared(file: bytes) -> Prepared:
        picture = decode(file, at_least_px=sufficient_px(network.name, registry))
        return prepare(picture.rgb, network.name, registry)

    def call() -> Stages:
        seconds = [0.0, 0.0, 0.0]
        for first in range(0, len(files), batch):
            group = files[first : first + batch]
            clocks = [time.perf_counter()]
            entries = [prepared(file) for file in group]
            clocks.append(time.perf_counter())
            predictions = predict(entries, networks)
            clocks.append(time.perf_counter())
            for entry, prediction in zip(entries, predictions, strict=True):
                encode_plane(finish(entry, prediction).mask)
            clocks.append(time.perf_counter())
            seconds = [sum + end - start for sum, start, end in zip(seconds, clocks, clocks[1:], strict=False)]
        return Stages(*(sum / len(files) for sum in seconds))

    call()
    return call


def rembgs(network: Network, folder: Path, pictures: int, *, only_mask: bool) -> Callable[[], Stages]:
    """Load a network, and return a call that runs ``rembg.remove`` on pictures."""
    from rembg import bg

    files, recorder = _files(folder, pictures), session(network)

    def call() -> Stages:
        stages = []
        for file in files:
            start = time.perf_counter()
            bg.remove(file, session=recorder, only_mask=only_mask)
            end = time.perf_counter()
            entered, left = recorder.inner_session.clocks
            stages.append(Stages(entered - start, left - entered, end - left))
        return Stages(*(sum(part) / len(files) for part in zip(*stages, strict=True)))

    call()
    return call


def session(network: Network) -> Any:
    """Return rembg's session of a network, with its ONNX session wrapped in :class:`RecordingSession`."""
    from rembg.sessions.u2net_custom import U2netCustomSession

    class Session(U2netCustomSession):  # type: ignore[misc]
        @classmethod
        def download_models(cls, *_: Any, **__: Any) -> str:
            return str(network.path)

    recorded = Session("u2net_custom", onnxruntime.SessionOptions(), model_path=str(network.path))
    recorded.inner_session = RecordingSession(recorded.inner_session)
    return recorded


class RecordingSession:
    """Wrap a session of ONNX Runtime; record the start, end, input, and output of the last run."""

    def __init__(self, recorded: Any) -> None:
        self._session = recorded
        self.clocks = (0.0, 0.0)
        self.entry: Any = None
        self.prediction: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, names: Sequence[str] | None, feed: dict[str, Any]) -> Any:
        """Run the network and record the run."""
        entered = time.perf_counter()
        outputs = self._session.run(names, feed)
        self.clocks = entered, time.perf_counter()
        [self.entry], [self.prediction] = feed.values(), outputs[:1]
        return outputs


def _files(folder: Path, pictures: int) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir())[:pictures]]
