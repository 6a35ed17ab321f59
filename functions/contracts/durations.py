"""How long the functions take by memory size: ``measured_durations.json``, which ``make tune`` writes."""

from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

FILE: Final = Path(__file__).with_name("measured_durations.json")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sample(_Model):
    """A function at one memory size.

    Attributes:
        memory_mb: configured memory.
        seconds: median billed duration of a warm call.
        init_seconds: init phase of a cold start.
        first_seconds: billed duration of the first call after it.
        peak_mb: peak resident memory of the function's processes.
    """

    memory_mb: int = Field(gt=0)
    seconds: float = Field(gt=0)
    init_seconds: float = Field(ge=0)
    first_seconds: float = Field(gt=0)
    peak_mb: int = Field(gt=0)

    @property
    def gb_s(self) -> float:
        """Memory times billed duration of a warm call, in GB and seconds."""
        return self.memory_mb / 1024 * self.seconds


class Measurement(_Model):
    """A function at all memory sizes, and what follows for the template.

    Attributes:
        samples: by increasing memory; without the sizes at which the function ran out of memory.
        out_of_memory_mb: those sizes.
        proposed_mb: memory for the template.
        reason: why this size.
    """

    samples: tuple[Sample, ...] = Field(min_length=1)
    out_of_memory_mb: tuple[int, ...] = ()
    proposed_mb: int
    reason: str

    @property
    def cheapest(self) -> Sample:
        """The size at which a warm call costs least."""
        return min(self.samples, key=lambda sample: sample.gb_s)

    @property
    def fastest(self) -> Sample:
        """The size at which a warm call is fastest."""
        return min(self.samples, key=lambda sample: sample.seconds)

    def seconds(self, memory_mb: int) -> float:
        """Return the billed duration of a warm call at any memory size.

        It is linear in the time that a core's work takes between two measured sizes. Below the smallest size the
        duration grows as the CPU share shrinks, and above the largest it stays the same: both are upper bounds.
        """
        smallest, largest = self.samples[0], self.samples[-1]
        if memory_mb <= smallest.memory_mb:
            return smallest.seconds * smallest.memory_mb / memory_mb
        for low, high in pairwise(self.samples):
            if memory_mb <= high.memory_mb:
                share = (1 / memory_mb - 1 / high.memory_mb) / (1 / low.memory_mb - 1 / high.memory_mb)
                return high.seconds + share * (low.seconds - high.seconds)
        return largest.seconds


class Durations(_Model):
    """All measurements, and how they were made.

    Attributes:
        date: day of the measurement, e.g. ``2026-11-30``.
        cpu: model of the processor.
        cpus: number of its cores.
        load: load average at the start: processes besides the measured one that wanted a CPU.
        command: that made the file.
        image: name of the photograph; width_px and height_px: its size; bytes: of its file.
        model: network that segments.
        precision: ``precision_level`` of the request.
        calls: warm calls per size.
        functions: by name: ``validate``, ``segment``, ``refine``, ``encode``, and ``bulk``, which runs all of them in
            one process; and small ones.
    """

    date: str
    cpu: str
    cpus: int
    load: float
    command: str
    image: str
    width_px: int
    height_px: int
    bytes: int
    model: str
    precision: str
    calls: int
    functions: Mapping[str, Measurement]


@cache
def durations() -> Durations:
    """Return the measurements of this version."""
    return Durations.model_validate_json(FILE.read_text())
