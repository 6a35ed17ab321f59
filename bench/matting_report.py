"""Format the results of the matting benchmark as Markdown."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean, median
from typing import Final

import numpy as np

from bench.errors import Errors
from bench.intervals import Estimate, auc, estimate, geometric_mean, share
from bench.markdown import table
from bench.matting_methods import BARE, LEVELS, REMBG

PHOTOGRAPHS: Final = "pictures of the dataset"
COMPOSITES: Final = "composites"
MADE: Final = "made from the true alpha"

_MADE_TITLE: Final = "Masks made from the true alpha, not by a network: no measure of real use"

_ERRORS: Final = ("sad", "mse", "gradient")
_GOALS: Final = {"standard": "0.95 / 0.90 / 1.00", "high": "0.90 / 0.75 / 0.92"}
_GOALS_FROM_PICTURE: Final = {"high": "0.88 / 0.72 / 0.90", "ultra_high": "0.80 / 0.65 / 0.85"}
_WORSE: Final = 1.02
_HARM: Final = 1.05
_LISTED: Final = 20
_BAD_MSE: Final = 0.02
_JUDGED: Final = "high"
"""The level whose alpha decides whether a picture is bad."""

_BINS: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_LEAST: Final = 1e-6  # avoids division by 0


@dataclass(frozen=True)
class Seen:
    """What the segmentation of a precision level did.

    Attributes:
        mask_mse: of the mask, enlarged to the picture's size.
    """

    looks: tuple[str, ...]
    rejected_looks: tuple[str, ...]
    mask_mse: float


@dataclass(frozen=True)
class Result:
    """The results of all methods for one mask.

    Attributes:
        group: the kind of mask.
        network: the network's name.
        errors: by method, from the same mask; a method that failed is missing.
        from_picture: by precision level, second looks of the segmentation included.
        seen: by precision level.
        seconds: by method, from mask to alpha.
        score: quality score of the mask.
        review: whether the score asks for a review.
        notes: warnings by method.
        failures: reasons by method.
    """

    group: str
    network: str
    picture: str
    kind: str
    errors: Mapping[str, Errors]
    from_picture: Mapping[str, Errors] = field(default_factory=dict)
    seen: Mapping[str, Seen] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    score: float = math.nan
    review: bool = False
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def bad(self) -> bool:
        """Whether the cut-out is unusable."""
        return self.errors[_JUDGED].mse > _BAD_MSE


def markdown(results: Sequence[Result], where: str, left_out: Sequence[str] = ()) -> str:
    """Return the report: errors relative to rembg's for each kind of mask, the quality score, and incidents."""
    sections = [
        f"Platform: {where}.",
        "Errors are relative to `rembg.remove(alpha_matting=True)` with the same mask: geometric means over pictures,"
        " with 95 % intervals from resampling the pictures.",
    ]
    groups = list(dict.fromkeys(one.group for one in results))
    for group in groups:
        title = _MADE_TITLE if group == MADE else f"Masks of networks, {group}"
        for network, chosen in _by_network([one for one in results if one.group == group]):
            of = f"{title}, {network}, {len({one.picture for one in chosen})} pictures"
            sections += [_relative(of, chosen), _worse_than_bare(chosen)]
            if group.startswith(COMPOSITES):
                sections.append(_by_kind(chosen))
            if any(one.from_picture for one in chosen):
                sections.append(_from_picture(f"Picture to alpha, {of[0].lower()}{of[1:]}", chosen))
                sections.append(_second_looks(f"Second looks, {of[0].lower()}{of[1:]}", chosen))
    judged = [one for one in results if one.group != MADE and _JUDGED in one.errors]
    real = [
        (f"{group}, {network}", chosen)
        for group in groups
        for network, chosen in _by_network([one for one in judged if one.group == group])
    ]
    sections += [_quality(real), _reliability(real), _incidents(results, left_out)]
    return "\n\n".join(sections)


def _by_network(results: Sequence[Result]) -> Iterator[tuple[str, list[Result]]]:
    """Yield the results of each network and, if there are several, of all together."""
    names = list(dict.fromkeys(one.network for one in results))
    for name in names:
        yield name, [one for one in results if one.network == name]
    if len(names) > 1:
        yield "all networks", list(results)


def ratio(results: Sequence[Result], method: str, peer: str, error: str, *, whole: bool = False) -> Estimate:
    """Return the geometric mean over pictures of a method's error divided by its peer's.

    Results in which one of them failed are left out. Several results of a picture count as one.

    Args:
        results: of any number of pictures and networks.
        method: in the numerator.
        peer: in the denominator.
        error: field of ``Errors``.
        whole: take the method's alpha from the picture instead of from the mask.
    """
    by_picture: dict[str, list[float]] = {}
    for one in results:
        ours, theirs = (one.from_picture if whole else one.errors).get(method), one.errors.get(peer)
        if ours and theirs:
            by_picture.setdefault(one.picture, []).append(_log_ratio(getattr(ours, error), getattr(theirs, error)))
    return estimate(geometric_mean, [fmean(logarithms) for logarithms in by_picture.values()])


def _relative(title: str, results: Sequence[Result]) -> str:
    rows = []
    for method in (BARE, *LEVELS):
        below = dict(zip(LEVELS[1:], LEVELS, strict=False)).get(method)
        gain = ratio(results, method, below, "mse").value if below else math.nan
        seconds = [one.seconds[method] for one in results if method in one.seconds]
        rows.append([
            method,
            *(str(ratio(results, method, REMBG, error)) for error in _ERRORS),
            "" if results[0].group == MADE else _GOALS.get(method, ""),
            _number(gain),
            f"{median(seconds):.3f}" if seconds else "-",
        ])  # fmt: skip
    peer_s = median(one.seconds[REMBG] for one in results)
    heads = ["", "SAD", "MSE", "gradient", "goal", "MSE against the level below", f"s (rembg {peer_s:.2f})"]
    return table(title, heads, rows)


def _from_picture(title: str, results: Sequence[Result]) -> str:
    rows = [
        [
            level,
            *(str(ratio(results, level, REMBG, error, whole=True)) for error in _ERRORS),
            _GOALS_FROM_PICTURE.get(level, ""),
        ]
        for level in LEVELS
    ]
    return table(title, ["", "SAD", "MSE", "gradient", "goal"], rows)


def _second_looks(title: str, results: Sequence[Result]) -> str:
    """Return a table of what second looks change, relative to one look at the same picture."""
    rows = []
    for level in LEVELS:
        chosen = [one for one in results if level in one.seen and level in one.from_picture]
        passes = [len(one.seen[level].looks) + len(one.seen[level].rejected_looks) for one in chosen]
        if max(passes, default=1) == 1:
            continue
        masks = [_log_ratio(one.seen[level].mask_mse, one.errors[BARE].mse) for one in chosen]
        rows.append([
            level,
            f"{np.mean(passes):.2f}",
            f"{np.mean([len(one.seen[level].looks) > 1 for one in chosen]):.0%}",
            str(estimate(geometric_mean, masks)),
            *(str(estimate(geometric_mean, _against_one_look(chosen, level, error))) for error in _ERRORS),
            *_harm(chosen, level),
        ])  # fmt: skip
    heads = ["", "passes", "merged", "mask's MSE", "SAD", "MSE", "gradient"]
    return table(title, [*heads, f"SAD worse by more than {_HARM - 1:.0%}", "worst"], rows)


def _against_one_look(results: Sequence[Result], level: str, error: str) -> list[float]:
    return [_log_ratio(getattr(one.from_picture[level], error), getattr(one.errors[level], error)) for one in results]


def _harm(results: Sequence[Result], level: str) -> tuple[str, str]:
    """Return the share of pictures that second looks make worse, and the worst one."""
    harm = [math.exp(logarithm) for logarithm in _against_one_look(results, level, "sad")]
    worst, name = max(zip(harm, (one.picture for one in results), strict=True))
    return f"{np.mean([one > _HARM for one in harm]):.0%}", f"{name} {worst:.2f}"


def _log_ratio(ours: float, theirs: float) -> float:
    return math.log(max(ours, _LEAST) / max(theirs, _LEAST))


def _by_kind(results: Sequence[Result]) -> str:
    rows = []
    for kind in sorted({one.kind for one in results}):
        chosen = [one for one in results if one.kind == kind]
        cells = (
            " / ".join(_number(ratio(chosen, method, REMBG, error).value) for error in _ERRORS)
            for method in (BARE, *LEVELS)
        )
        rows.append([kind, str(len(chosen)), *cells])
    return table("By subject: SAD / MSE / gradient", ["", "masks", BARE, *LEVELS], rows)


def _worse_than_bare(results: Sequence[Result]) -> str:
    lines = []
    for level in LEVELS:
        against = {
            f"{one.picture} ({one.network})": one.errors[level].sad / max(one.errors[BARE].sad, _LEAST)
            for one in results
            if level in one.errors
        }
        worse = sorted((name for name, value in against.items() if value > _WORSE), key=against.__getitem__)[::-1]
        shown = ", ".join(f"{name} {against[name]:.2f}" for name in worse[:_LISTED])
        more = f" and {len(worse) - _LISTED} more" if len(worse) > _LISTED else ""
        percent = 100 * len(worse) / max(1, len(against))
        lines.append(f"- {level}: {len(worse)} of {len(against)} ({percent:.1f} %){': ' if worse else ''}{shown}{more}")
    return "SAD over 2 % above the bare mask's (goal: at most 2 % of the pictures):\n\n" + "\n".join(lines)


def _quality(groups: Sequence[tuple[str, list[Result]]]) -> str:
    rows = []
    for name, results in groups:
        scores = [one.score for one in results]
        bad, review = [one.bad for one in results], [one.review for one in results]
        good = [not one for one in bad]
        rows.append([
            name, str(len(results)), str(sum(bad)), str(estimate(auc, scores, bad)),
            str(estimate(share, review, bad)), str(estimate(share, review, good)),
        ])  # fmt: skip
    heads = ["", "masks", "bad", "AUC (goal 0.92)", "bad with review (goal 0.90)", "good with review (goal 0.15)"]
    return table(f"Quality score; bad: MSE of `{_JUDGED}` above {_BAD_MSE}", heads, rows)


def _reliability(groups: Sequence[tuple[str, list[Result]]]) -> str:
    rows = []
    for low, high in pairwise(_BINS):
        cells = []
        for _, results in groups:
            inside = [(one.score, not one.bad) for one in results if low <= one.score < high or one.score == high == 1]
            usable = np.mean([usable for _, usable in inside]) if inside else math.nan
            mean = np.mean([score for score, _ in inside]) if inside else math.nan
            cells.append(f"{_number(float(usable))} ({_number(float(mean))}, {len(inside)})")
        rows.append([f"{low:.1f} to {high:.1f}", *cells])
    return table("Reliability: share of usable cut-outs by score (mean score, masks)", ["score", *dict(groups)], rows)


def _incidents(results: Sequence[Result], left_out: Sequence[str]) -> str:
    lines = [f"- {name}: the network found no subject; left out above" for name in left_out]
    lines += [
        f"- {one.group}, {one.network}, {one.picture}, {method}: {'; '.join(reasons)}"
        for one in results
        for method, reasons in (*one.notes.items(), *((name, (why,)) for name, why in one.failures.items()))
    ]
    return "Failures and warnings:\n\n" + ("\n".join(lines) or "none")


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
