"""Find the AWS limits that constrain 1 to 10,000 uploads per second, and the values to raise them to.

The demand of an upload comes from the definition of the state machine; function durations are measured locally. A limit
allows its rate divided by the demand of one upload. Usage: ``python -m bench.studies.capacity``.
"""

import argparse
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from samtranslator.yaml_helper import yaml_parse

from bench import platform_info
from bench.embedded import ROOT
from bench.load import photograph
from bench.markdown import table
from bench.measure import Case, Cost, measure
from bench.studies.demand import COMPUTED, PATHS, demand, walk
from bench.studies.quotas import OTHERS, QUOTAS, Account
from core import pipeline
from core.image import decode
from core.options import Options
from core.segmentation.registry import CLASSICAL
from core.segmentation.segment import segment, sufficient_px
from core.segmentation.sessions import Networks
from core.types import Precision
from functions.runtime.weights import ModelSource

OUT: Final = Path("out/capacity")
DEFINITION: Final = ROOT / "statemachine/remove_background.asl.yaml"
TEMPLATE: Final = ROOT / "template.yaml"
RATES: Final = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)
MEGAPIXELS: Final = (2.0, 12.0)
NETWORK_S: Final = 6.0
"""Assumed duration of a network on one picture, because the published weights are not available here."""

_ROUNDS: Final = 3
_UTILIZATION: Final = 0.8  # planned utilization of a raised limit
_MB_PER_VCPU: Final = 1_769  # Lambda allocates CPU in proportion to memory
_METRICS_S: Final = 0.02
_CALL_S: Final = 0.05  # assumed overhead of S3 and Lambda per function
_STAGES: Final = ("ValidateFunction", "SegmentFunction", "RefineFunction", "EncodeFunction")

Durations = Mapping[str, float]
"""Seconds per Lambda function."""


@dataclass(frozen=True)
class Project:
    """The definition of the state machine, and the memory of each function."""

    definition: Mapping[str, Any]
    memory_mb: Mapping[str, int]

    @classmethod
    def read(cls) -> "Project":
        """Read the state machine and the template."""
        template = yaml_parse(TEMPLATE.read_text())
        resources, parameters = template["Resources"], template["Parameters"]

        def value(given: int | dict[str, str]) -> int:
            return given if isinstance(given, int) else int(parameters[given["Ref"]]["Default"])

        return cls(
            definition=yaml.safe_load(DEFINITION.read_text()),
            memory_mb={
                name: value(resource["Properties"]["MemorySize"])
                for name, resource in resources.items()
                if resource["Type"] == "AWS::Serverless::Function"
            },
        )


def measured(megapixels: float, project: Project) -> dict[str, float]:
    """Measure each stage on a photograph of the given size and return the seconds per function.

    Durations are CPU times, scaled up for functions with less than one core, because other load on the computer hardly
    affects CPU time.
    """
    cases = {function: Case(_stage, (photograph(megapixels), function), _ROUNDS) for function in _STAGES}
    durations = {"MetricsFunction": _METRICS_S + _CALL_S, "FailureFunction": _METRICS_S + _CALL_S}
    for function, cost in measure(cases).items():
        if not isinstance(cost, Cost):
            raise RuntimeError(cost.reason)
        vcpus = project.memory_mb[function] / _MB_PER_VCPU
        durations[function] = cost.cpu_s / min(1.0, vcpus) + _CALL_S
    return durations


def _stage(picture: bytes, function: str) -> Callable[[], object]:
    """Prepare the call of one stage, without S3."""
    networks = Networks(ModelSource(()), threads=1)
    full = decode.decode(picture)
    mask = segment(full.rgb, CLASSICAL, networks).mask
    alpha = pipeline.refine_edge(full, mask, Precision.HIGH).alpha

    def validate() -> object:
        return hashlib.sha256(picture).digest(), decode.decode(picture, at_least_px=1)

    def segment_picture() -> object:
        small = decode.decode(picture, at_least_px=sufficient_px(CLASSICAL, networks.source.registry))
        return segment(small.rgb, CLASSICAL, networks)

    def refine() -> object:
        return pipeline.refine_edge(decode.decode(picture), mask, Precision.HIGH)

    def encode() -> object:
        return pipeline.finish(decode.decode(picture), alpha, Options(model=CLASSICAL), None)

    call = dict(zip(_STAGES, (validate, segment_picture, refine, encode), strict=True))[function]
    call()
    return call


def main() -> None:
    """Run the study, print the tables, and write them to ``out/capacity``."""
    argparse.ArgumentParser(prog="python -m bench.studies.capacity", description=__doc__).parse_args()
    project = Project.read()
    images = {f"{size:g} MP": measured(size, project) for size in MEGAPIXELS}
    network = f"{MEGAPIXELS[-1]:g} MP, a network of {NETWORK_S:g} s"
    images[network] = images[f"{MEGAPIXELS[-1]:g} MP"] | {"SegmentFunction": NETWORK_S}
    text = "\n\n".join(_parts(images, network, project))
    print(text)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "capacity.md").write_text(f"{text}\n")


def _parts(images: Mapping[str, Durations], network: str, project: Project) -> Iterator[str]:
    yield f"Platform: {platform_info.describe()}."
    yield durations_table(images)
    yield demand_table(project)
    yield quota_table()
    yield first_limits(images, project)
    yield raise_table(images[network], project)


def durations_table(images: Mapping[str, Durations]) -> str:
    """Return the table of seconds per function."""
    heads = ["", *(function.removesuffix("Function") for function in _STAGES)]
    rows = [(name, *(f"{took[function]:.2f}" for function in _STAGES)) for name, took in images.items()]
    return table("Seconds per function, on one core", heads, rows)


def demand_table(project: Project) -> str:
    """Return the table of demand per upload, by path."""
    needs = {name: demand(walk(project.definition, path)) for name, path in PATHS.items()}
    limits = [quota.limit for quota in QUOTAS if any(needed[quota.limit] for needed in needs.values())]
    limits = [limit for limit in limits if limit not in ("events", "starts")]
    rows = [(name, *(f"{needed[limit] or ''}" for limit in limits)) for name, needed in needs.items()]
    return table("Demand of one upload", ["", *limits], rows)


def quota_table() -> str:
    """Return the table of default limits with their sources."""

    def amount(long_run: float, burst: float) -> str:
        return f"{long_run:,.0f}" if burst == long_run else f"{long_run:,.0f}, {burst:,.0f} burst"

    def known(source: str, verified: bool) -> str:
        return source if verified else f"{source}; unverified"

    rows = [
        (q.name, *(amount(q.per_second[a], q.burst[a]) for a in Account), known(q.source, q.verified)) for q in QUOTAS
    ]
    rows += [(name, value, "", "", known(source, verified)) for name, value, source, verified in OTHERS]
    return table("Default limits, per second", ["", *Account, "source"], rows)


def allowed(durations: Durations, project: Project, account: Account) -> dict[str, float]:
    """Return the sustained uploads per second that each limit allows, lowest first."""
    path = walk(project.definition, COMPUTED)
    needed: dict[str, float] = {limit: float(amount) for limit, amount in demand(path).items()}
    needed["concurrency"] = sum(durations[step.function] for step in path if step.function)
    rates = {
        quota.limit: quota.per_second[account] / needed[quota.limit] for quota in QUOTAS if needed.get(quota.limit)
    }
    return dict(sorted(rates.items(), key=lambda entry: entry[1]))


def first_limits(images: Mapping[str, Durations], project: Project) -> str:
    """Return the table of the four lowest limits by account and picture."""
    rows = []
    for account in Account:
        for name, durations in images.items():
            tightest = list(allowed(durations, project, account).items())[:4]
            rows.append((f"{account}, {name}", *(f"{limit} {rate:,.0f}" for limit, rate in tightest)))
    return table("Uploads per second that a limit allows", ["", "first", "second", "third", "fourth"], rows)


def raise_table(durations: Durations, project: Project) -> str:
    """Return the table of limits to raise, with the value needed for each rate."""
    rates = allowed(durations, project, Account.LARGE)
    names = {quota.limit: quota for quota in QUOTAS}
    rows = []
    for limit, rate in rates.items():
        now = names[limit].per_second[Account.LARGE]
        needs = [now / rate * wanted / _UTILIZATION for wanted in RATES]
        if needs[-1] > now:
            cells = (f"{_rounded(need):,.0f}" if need > now else "" for need in needs)
            rows.append((names[limit].name, f"{now:,.0f}", *cells, names[limit].raised))
    heads = ["limit", "default", *(f"{rate:,}/s" for rate in RATES), "how to raise"]
    title = f"Limits to raise, {Account.LARGE}, 12 MP and a network, {1 - _UTILIZATION:.0%} headroom"
    return table(title, heads, rows)


def _rounded(value: float) -> float:
    """Round up to two significant digits."""
    power = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / power) * power


if __name__ == "__main__":
    main()
