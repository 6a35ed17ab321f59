"""Where the time of a segmentation goes: before the network, in it, and after it.

Before it lie reading, decoding, resizing and normalising; after it, making a mask of the prediction and a file of the
mask. One picture after the other, in one process, so that the parts add up.
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
    """Seconds for each picture."""

    before: float
    network: float
    after: float

    @property
    def total(self) -> float:
        """Seconds for a picture if nothing runs beside anything else."""
        return sum(self)

    def shares(self) -> str:
        """Return the parts of the total, as a report shows them."""
        return " / ".join(f"{part / self.total:.0%}" for part in self)


def ours(
    network: Network, folder: Path, pictures: int, batch: int = 1, device: Device = Device.CPU
) -> Callable[[], Stages]:
    """Load a network, and return the call that segments some pictures as our hosts do it."""
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
    """Load a network, and return the call that has ``rembg.remove`` do the same pictures."""
    from rembg import bg

    files, watch = _files(folder, pictures), session(network)

    def call() -> Stages:
        stages = []
        for file in files:
            start = time.perf_counter()
            bg.remove(file, session=watch, only_mask=only_mask)
            end = time.perf_counter()
            entered, left = watch.inner_session.clocks
            stages.append(Stages(entered - start, left - entered, end - left))
        return Stages(*(sum(part) / len(files) for part in zip(*stages, strict=True)))

    call()
    return call


def session(network: Network) -> Any:
    """Return rembg's session of a network, with a look at what goes into the network and what comes out."""
    from rembg.sessions.u2net_custom import U2netCustomSession

    class Session(U2netCustomSession):  # type: ignore[misc]
        @classmethod
        def download_models(cls, *_: Any, **__: Any) -> str:
            return str(network.path)

    watched = Session("u2net_custom", onnxruntime.SessionOptions(), model_path=str(network.path))
    watched.inner_session = Watch(watched.inner_session)
    return watched


class Watch:
    """Stands before a session of ONNX Runtime; keeps the times, the input and the output of the last run."""

    def __init__(self, watched: Any) -> None:
        self._watched = watched
        self.clocks = (0.0, 0.0)
        self.entry: Any = None
        self.prediction: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._watched, name)

    def run(self, names: Sequence[str] | None, feed: dict[str, Any]) -> Any:
        """Run the network."""
        entered = time.perf_counter()
        outputs = self._watched.run(names, feed)
        self.clocks = entered, time.perf_counter()
        [self.entry], [self.prediction] = feed.values(), outputs[:1]
        return outputs


def _files(folder: Path, pictures: int) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir())[:pictures]]
