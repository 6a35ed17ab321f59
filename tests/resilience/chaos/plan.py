"""Plans a chaos run by its seed: the uploads, their faults, and how each has to end."""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from PIL import Image
from skimage import data as photographs

from core.options import Options
from embedded_cloud.faults import FaultEffect
from functions.contracts import object_keys
from tests.conftest import disc, file_of

FOREVER = 1_000_000
MET_BY_ALL = ("Validate", "upload")
COPIED = 0.55  # share of the uploads whose content others have too
ON_ECS = 0.3
IN_LARGEST = 0.1
GROUP = (2, 6)
POISONED_AT_MOST = 4  # they fail one after another, three times each
PHOTOGRAPHS = ("coffee", "rocket", "chelsea", "astronaut")
OPTIONS: tuple[Mapping[str, str], ...] = (
    {},
    {"precision_level": "draft"},
    {"precision_level": "standard", "format": "webp"},
    {"precision_level": "draft", "format": "jpeg", "background_color": "#204060"},
    {"precision_level": "draft", "crop": "true"},
)

T = TypeVar("T")


def share(*what: object) -> float:
    """Return a number in [0, 1) that depends on the arguments only."""
    digest = hashlib.sha256("/".join(map(str, what)).encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def pick(choices: Sequence[T], *what: object) -> T:
    """Choose one by its share."""
    return choices[int(share(*what) * len(choices))]


@dataclass(frozen=True)
class Report:
    """The outcome of an upload without a result: the stages and the error that its report may name."""

    stages: frozenset[str]
    error: str


@dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes:
        kind: its name in the account.
        where: the function, the S3 object, or the state that calls DynamoDB.
        times: how many attempts fail.
        report: the outcome of the upload; None if it still has a result.
        ending: how a function is killed.
        answered: whether that function had finished its work.
        code: the error code of a refused request.
        after: how many attempts succeed before.
        by_content: whether it applies to any execution that works on the content, rather than to one upload.
        hosts: the segmentation hosts that it applies to.
        own_content: whether it applies only to uploads that share their content with no other. Among several with one
            content, the affected one would depend on the order.
    """

    kind: str
    where: str
    times: int = 1
    report: Report | None = None
    ending: FaultEffect | None = None
    answered: bool = False
    code: str = ""
    after: int = 0
    by_content: bool = False
    hosts: frozenset[str] = frozenset({"lambda", "ecs"})
    own_content: bool = False


@dataclass(frozen=True)
class Content:
    """A file, and the options that it is always uploaded with.

    Attributes:
        name: the seed of its image.
        data: the file.
        options: options that differ from their defaults.
        host: of segmentation.
        report: the outcome of each upload, if it is not an image, or an empty one.
        fault: applies to the first execution that works on it, or to all.
    """

    name: str
    data: bytes = field(repr=False)
    options: Mapping[str, str]
    host: str
    report: Report | None = None
    fault: Fault | None = None

    @cached_property
    def cache_key(self) -> str:
        options = Options.parse({**self.options, "model": "classical"})
        sha256 = hashlib.sha256(self.data).hexdigest()
        return object_keys.cache_key(sha256, options, model_identity=None, background_sha256=None)


@dataclass(frozen=True)
class Upload:
    """An upload and its fault."""

    key: str
    content: Content
    fault: Fault | None = None

    @property
    def stem(self) -> str:
        return self.key.removesuffix(".png")

    @property
    def metadata(self) -> dict[str, str]:
        options = {**self.content.options, "segmentation_host": self.content.host}
        return {f"pbr-{name.replace('_', '-')}": value for name, value in options.items()}

    @property
    def report(self) -> Report | None:
        """The report it has to end with, or None for a result. An upload that fails in Validate goes no further."""
        faults = (self.content.fault, self.fault)
        reports = [self.content.report, *(fault.report for fault in faults if fault)]
        return min(filter(None, reports), key=lambda report: "Validate" not in report.stages, default=None)

    @property
    def faults(self) -> Iterator[tuple[str, Fault]]:
        """The faults with their subjects: the upload's stem, or the content's cache key."""
        if self.content.fault:
            yield self.content.cache_key, self.content.fault
        if self.fault:
            yield self.content.cache_key if self.fault.by_content else self.stem, self.fault


LAMBDA = frozenset({"lambda"})
ECS = frozenset({"ecs"})
SEGMENTING = frozenset({"SegmentOnEcs", "SegmentOnLambda"})


def _report(stage: str, error: str) -> Report:
    return Report(SEGMENTING if stage == "Segment" else frozenset({stage}), error)


def _killed() -> Iterator[Fault]:
    for kind, ending in (("crash", FaultEffect.CRASH), ("timeout", FaultEffect.TIMEOUT)):
        for stage in ("Validate", "Segment", "Refine", "Encode", "Metrics"):
            hosts = LAMBDA if stage == "Segment" else LAMBDA | ECS
            for answered in (False, True):
                for times in (1, 2):
                    yield Fault(
                        kind, stage, times, None, ending, answered, hosts=hosts, own_content=stage != "Validate"
                    )
            report = None if stage == "Metrics" else _report(stage, ending.value)
            yield Fault(kind, stage, FOREVER, report, ending, hosts=hosts, own_content=stage != "Validate")
        # The result is written, and the state machine does not receive the answer.
        yield Fault(kind, "Encode", FOREVER, None, ending, answered=True, own_content=True)


def _throttled() -> Iterator[Fault]:
    error = "TooManyRequestsException"
    for stage in ("Validate", "Segment", "Refine", "Encode", "Metrics"):
        hosts = LAMBDA if stage == "Segment" else LAMBDA | ECS
        for times in (1, 4):
            yield Fault("lambda throttle", stage, times, code=error, hosts=hosts, own_content=stage != "Validate")
    for stage in ("Validate", "Refine"):
        report = _report(stage, f"Lambda.{error}")
        yield Fault("lambda throttle", stage, FOREVER, report, code=error, own_content=stage != "Validate")


def _slowed_down() -> Iterator[Fault]:
    stages = {"upload": "Validate", "mask": "Segment", "alpha": "Refine", "copy": "Encode"}
    for what in (*stages, "result", "sidecar"):
        by_content = what in ("mask", "alpha", "copy")
        for times in (1, 3, 5):  # the SDK tries four times, and the state machine five where it writes itself
            own = by_content or times == 5
            yield Fault("s3 throttle", what, times, code="SlowDown", by_content=by_content, own_content=own)
        if what in ("upload", "alpha", "sidecar"):
            report = _report(stages.get(what, "Encode"), "StorageUnavailableError")
            yield Fault(
                "s3 throttle",
                what,
                FOREVER,
                report,
                code="SlowDown",
                by_content=by_content,
                own_content=what != "upload",
            )


def _dynamodb_throttled() -> Iterator[Fault]:
    for code in ("ProvisionedThroughputExceededException", "ThrottlingException"):
        for state in ("LookUpCache", "ClaimWork", "SaveCache"):
            for times in (1, 4):
                yield Fault("dynamodb throttle", state, times, code=code, by_content=True, own_content=True)
        for state in ("LookUpCache", "ClaimWork"):
            report = _report(state, f"DynamoDB.{code}")
            yield Fault("dynamodb throttle", state, FOREVER, report, code=code, by_content=True, own_content=True)


def _worker_killed() -> Iterator[Fault]:
    for times in (1, 2, 3):  # the fourth worker returns a failure, and Lambda takes the job
        yield Fault("worker kill", "upload", times, after=1, hosts=ECS, own_content=True)  # Validate reads it before
        yield Fault("worker kill", "mask", times, by_content=True, hosts=ECS, own_content=True)


def _deleted() -> Iterator[Fault]:
    for stage in ("Validate", "Segment", "Refine", "Encode"):
        hosts = LAMBDA if stage == "Segment" else LAMBDA | ECS
        report = _report(stage, "SourceNotFoundError")
        yield Fault("deleted", stage, report=report, hosts=hosts, own_content=stage != "Validate")
    yield Fault("deleted", "Metrics", own_content=True)


def _stopped() -> Iterator[Fault]:
    for stage in ("Validate", "Segment", "Refine"):
        hosts = LAMBDA if stage == "Segment" else LAMBDA | ECS
        report = _report(stage, "ExecutionAborted")
        yield Fault("stopped", stage, report=report, hosts=hosts, own_content=stage != "Validate")
    for stage in ("Encode", "Metrics"):  # the running function continues and writes the result
        yield Fault("stopped", stage, own_content=True)


FAULTS: Mapping[str, tuple[Fault, ...]] = {
    "killed": tuple(_killed()),
    "lambda throttle": tuple(_throttled()),
    "s3 throttle": tuple(_slowed_down()),
    "dynamodb throttle": tuple(_dynamodb_throttled()),
    "worker kill": tuple(_worker_killed()),
    "deleted": tuple(_deleted()),
    "stopped": tuple(_stopped()),
    "duplicate event": (Fault("duplicate event", "Validate"),),
    "broken picture": (
        Fault("broken picture", "nowhere", own_content=True),
        Fault("broken picture", "Failure", 1, ending=FaultEffect.CRASH, own_content=True),
        Fault("broken picture", "Failure", 2, ending=FaultEffect.TIMEOUT, answered=True, own_content=True),
        Fault("broken picture", "Failure", FOREVER, ending=FaultEffect.CRASH, own_content=True),
        Fault("broken picture", "Failure", 4, code="TooManyRequestsException", own_content=True),
        Fault("broken picture", "report", 5, code="SlowDown", own_content=True),
    ),
}
GROUP_FAULTS = (
    Fault("owner killed", "Segment", 1, None, FaultEffect.CRASH, by_content=True, hosts=LAMBDA),
    Fault("owner killed", "Refine", 1, None, FaultEffect.TIMEOUT, by_content=True),
    Fault(
        "owner killed", "Refine", FOREVER, _report("Refine", "Runtime.ExitError"), FaultEffect.CRASH, by_content=True
    ),
)


@dataclass(frozen=True)
class Plan:
    """The plan of a run."""

    uploads: tuple[Upload, ...]

    @cached_property
    def contents(self) -> dict[str, Content]:
        """The contents by cache key."""
        return {upload.content.cache_key: upload.content for upload in self.uploads}

    @cached_property
    def certain(self) -> set[tuple[str, Fault]]:
        """The faults, with their subjects, that occur in any order of events."""
        return {
            (subject, fault)
            for upload in self.uploads
            for subject, fault in upload.faults
            if fault.where in MET_BY_ALL
            or (fault.where != "nowhere" and upload.report in (None, fault.report, upload.content.report))
        }


def plan(number: int, faults: float, seed: int) -> Plan:
    """Plan a run.

    Args:
        number: number of uploads.
        faults: share of uploads with a fault, 0 to 1.
        seed: determines the plan.
    """
    uploads = []
    for count, content in enumerate(_contents(number, faults, seed)):
        key = f"chaos/{count:05d}.png"
        fault = None
        if share(seed, key, "struck") < faults:  # choose a kind first: some kinds have more variants than others
            fault = pick(FAULTS[pick(tuple(FAULTS), seed, key, "kind")], seed, key, "fault")
            content = _content_for(seed, key, content, fault)
        uploads.append(Upload(key, content, fault))
    return Plan(tuple(sorted(uploads, key=lambda upload: share(seed, upload.key, "order"))))


def _content_for(seed: int, key: str, content: Content, fault: Fault) -> Content:
    """Return a content to which the fault can apply."""
    if fault.kind == "broken picture":
        return _broken(seed, key)
    if fault.own_content or content.host not in fault.hosts:
        content = _picture(seed, key)
    return content if content.host in fault.hosts else replace(content, host=min(fault.hosts))


def _contents(number: int, faults: float, seed: int) -> Iterator[Content]:
    """Yield the content of each upload: one shared by many, some shared by several, and unique ones."""
    copies = round(COPIED * number)
    sizes = [round(IN_LARGEST * number)]
    while sum(sizes) < copies:
        sizes.append(pick(range(*GROUP), seed, "group", len(sizes)))
    for count, size in enumerate(sizes):
        name = f"group-{count}"
        content = _picture(seed, name)
        if share(seed, name, "struck") < faults:
            at_most = FOREVER if size <= POISONED_AT_MOST else 1
            choices = [fault for fault in GROUP_FAULTS if fault.times <= at_most and content.host in fault.hosts]
            content = _picture(seed, name, pick(choices, seed, name, "fault"))
        yield from [content] * size
    for count in range(number - sum(sizes)):
        yield _picture(seed, f"own-{count}")


def _picture(seed: int, name: str, fault: Fault | None = None) -> Content:
    number = int(share(seed, name, "picture") * 2**32)
    side = pick((32, 36, 40), seed, name, "side") if share(seed, name, "large") < 0.95 else 96
    data = disc(width=side + 8, height=side, seed=number)
    if share(seed, name, "photograph") < 0.05:
        photograph = Image.fromarray(getattr(photographs, pick(PHOTOGRAPHS, seed, name, "which"))())
        photograph.thumbnail((128, 128))
        photograph.putpixel((0, 0), tuple(number.to_bytes(4)[:3]))
        data = file_of(photograph, "PNG")
    host = "ecs" if share(seed, name, "host") < ON_ECS else "lambda"
    return Content(name, data, pick(OPTIONS, seed, name, "options"), host, fault=fault)


def _broken(seed: int, key: str) -> Content:
    """Return a content that is not an image, or that shows nothing."""
    how = pick(("cut off", "text", "blank"), seed, key, "broken")
    whole = _picture(seed, key)
    if how == "cut off":
        data, report = whole.data[: len(whole.data) // 2], _report("Validate", "CorruptImageError")
    elif how == "text":
        data, report = f"{key} is no picture".encode(), _report("Validate", "UnsupportedFormatError")
    else:
        grey = np.full((64, 64, 3), 128, np.uint8)
        grey[0, 0] = list(int(share(seed, key, "grey") * 2**24).to_bytes(3))
        buffer = io.BytesIO()
        Image.fromarray(grey).save(buffer, "PNG")
        data, report = buffer.getvalue(), _report("Segment", "UnknownForegroundError")
    return Content(f"broken-{key}", data, {}, whole.host, report)
