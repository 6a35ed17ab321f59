"""The matting benchmark's results as Markdown."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final, TypeAlias

from bench.contenders import BARE, OF_MASKS, OF_TRIMAPS, REMBG
from bench.errors import Errors

PICTURE: Final = "picture"
BAND: Final = "band"

_ERRORS: Final = ("sad", "mse", "gradient", "connectivity")
_GOALS: Final = {
    "high": {"sad": 0.65, "mse": 0.40, "gradient": 0.85},
    "ultra_high": {"sad": 0.60, "mse": 0.35, "gradient": 0.80},
}
_NEVER_WORSE: Final = 1.02
_LEAST: Final = 1e-6  # an error of 0 has no ratio


@dataclass(frozen=True)
class Result:
    """What a method made of a picture and a hint.

    ``hint`` is the mask's size and fault (``320-clean``) or a trimap's name. ``errors``, by region, is None if the
    method ``failed``, which is then the reason. ``fell_back`` tells that it delivered something else than its alpha.
    ``peak_bytes`` is the most memory that it took for any hint of the picture.
    """

    picture: str
    hint: str
    method: str
    errors: dict[str, Errors] | None
    wall_s: float
    cpu_s: float
    peak_bytes: int | None
    notes: tuple[str, ...] = ()
    fell_back: bool = False
    failed: str | None = None


Keyed: TypeAlias = Mapping[tuple[str, str, str], Result]
"""By picture, hint and method."""


def markdown(results: Sequence[Result], where: str) -> str:
    """Write all tables: goals, ratios to rembg, means, ratios for each picture, and what went wrong."""
    keyed = {(one.picture, one.hint, one.method): one for one in results}
    masks = list(dict.fromkeys(one.hint for one in results if one.method in OF_MASKS))
    pictures = list(dict.fromkeys(one.picture for one in results))
    sections = [
        f"Machine: {where}.",
        f"{len(pictures)} pictures, {len(masks)} masks each. Ratios are geometric means over pictures and masks,"
        " without the cases in which rembg fell back to the bare mask.",
        _goals(keyed, pictures, masks),
        *(_ratios(keyed, pictures, masks, region) for region in (PICTURE, BAND)),
        _means(results),
        _by_picture(keyed, pictures, masks),
        _worse_than_bare(keyed, pictures, masks),
        _incidents(results),
    ]
    return "\n\n".join(sections)


def ratio(
    keyed: Keyed, method: str, peer: str, cases: Iterable[tuple[str, str]], region: str, error: str
) -> float | None:
    """Return the geometric mean of a method's error over its peer's, of the cases in which both did their own work.

    Args:
        keyed: all results.
        method: whose errors.
        peer: against whose.
        cases: picture and hint.
        region: where, as a key of ``Result.errors``.
        error: which, as a field of ``Errors``.
    """
    logs = []
    for case in cases:
        ours, theirs = (_error(keyed.get((*case, name)), region, error) for name in (method, peer))
        if ours is not None and theirs is not None:
            logs.append(math.log(max(ours, _LEAST) / max(theirs, _LEAST)))
    return math.exp(fmean(logs)) if logs else None


def _error(result: Result | None, region: str, error: str) -> float | None:
    if result is None or result.errors is None or result.fell_back:
        return None
    value: float = getattr(result.errors[region], error)
    return value


def _goals(keyed: Keyed, pictures: Sequence[str], masks: Sequence[str]) -> str:
    cases = [(picture, hint) for picture in pictures for hint in masks]
    rows = []
    for method, goals in _GOALS.items():
        for error, goal in goals.items():
            whole, band = (ratio(keyed, method, REMBG, cases, region, error) for region in (PICTURE, BAND))
            met = "-" if whole is None else "met" if whole <= goal else "missed"
            rows.append([f"`{method}`, {error}", f"<= {goal:.2f}", _number(whole), _number(band), met])
    against = [_against_bare(keyed, picture, masks) for picture in pictures]
    worse = sum(value is not None and value > _NEVER_WORSE for value in against)
    verdict = "-" if None in against else "missed" if worse else "met"
    rows.append(["pictures with `high` over 2 % worse than the bare mask, SAD", "0", str(worse), "", verdict])
    return _table("Goals, error relative to rembg's alpha matting", ["", "goal", PICTURE, BAND, ""], rows)


def _against_bare(keyed: Keyed, picture: str, masks: Iterable[str]) -> float | None:
    return ratio(keyed, "high", BARE, [(picture, hint) for hint in masks], PICTURE, "sad")


def _ratios(keyed: Keyed, pictures: Sequence[str], masks: Sequence[str], region: str) -> str:
    methods = [method for method in OF_MASKS if method != REMBG]
    rows = []
    for label, hints in _groups(masks):
        cases = [(picture, hint) for picture in pictures for hint in hints]
        rows.append([label, *(_ratio_cell(keyed, method, cases, region) for method in methods)])
    title = f"Error over the {region} relative to rembg's alpha matting: SAD / MSE / gradient / connectivity"
    return _table(title, ["mask", *methods], rows)


def _ratio_cell(keyed: Keyed, method: str, cases: Sequence[tuple[str, str]], region: str) -> str:
    return " / ".join(_number(ratio(keyed, method, REMBG, cases, region, error)) for error in _ERRORS)


def _groups(masks: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield all masks, those of each size, those of each fault, and each."""
    yield "all", list(masks)
    parts = [dict.fromkeys(name.split("-", 1)[part] for name in masks) for part in (0, 1)]
    yield from ((f"{side} px", [name for name in masks if name.startswith(f"{side}-")]) for side in parts[0])
    yield from ((fault, [name for name in masks if name.endswith(f"-{fault}")]) for fault in parts[1])
    yield from ((name.replace("-", " px, "), [name]) for name in masks)


def _means(results: Sequence[Result]) -> str:
    rows = [_means_of(method, [one for one in results if one.method == method]) for method in (*OF_MASKS, *OF_TRIMAPS)]
    heads = [*(f"{_title(error)}" for error in _ERRORS), "MSE, band", "s", "CPU s", "MB", "runs", "fell back", "failed"]
    title = (
        "Means over pictures and masks; pymatting's over pictures, from trimap1. Errors over the picture; SAD, gradient"
        " and connectivity in thousands, MSE in thousandths. MB: the most memory that was added"
    )
    return _table(title, ["", *heads], [row for row in rows if row])


def _title(error: str) -> str:
    return error.upper() if len(error) == 3 else error


def _means_of(method: str, results: Sequence[Result]) -> list[str]:
    done = [(one, one.errors) for one in results if one.errors is not None]
    if not done:
        return [method, *["-"] * 8, str(len(results)), "0", str(len(results))] if results else []

    errors = [fmean(getattr(found[PICTURE], error) for _, found in done) for error in _ERRORS]
    errors[1] *= 1000
    return [
        method,
        *map(_number, errors),
        _number(1000 * fmean(found[BAND].mse for _, found in done)),
        f"{fmean(one.wall_s for one, _ in done):.3f}",
        f"{fmean(one.cpu_s for one, _ in done):.3f}",
        f"{max(one.peak_bytes or 0 for one, _ in done) / 1e6:.0f}",
        str(len(results)),
        str(sum(one.fell_back for one in results)),
        str(len(results) - len(done)),
    ]


def _by_picture(keyed: Keyed, pictures: Sequence[str], masks: Sequence[str]) -> str:
    methods = [method for method in OF_MASKS if method != REMBG]
    rows = []
    for picture in pictures:
        cases = [(picture, hint) for hint in masks]
        rows.append([picture, *(_ratio_cell(keyed, method, cases, PICTURE) for method in methods)])
    return _table(
        "Each picture, over all masks, relative to rembg: SAD / MSE / gradient / connectivity",
        ["", *methods],
        rows,
    )


def _worse_than_bare(keyed: Keyed, pictures: Sequence[str], masks: Sequence[str]) -> str:
    rows = []
    for picture in pictures:
        against = {hint: _against_bare(keyed, picture, [hint]) or 0 for hint in masks}
        worse = sorted((hint for hint in masks if against[hint] > _NEVER_WORSE), key=against.__getitem__, reverse=True)
        worst = ", ".join(f"{hint} {against[hint]:.2f}" for hint in worse)
        rows.append([picture, _number(_against_bare(keyed, picture, masks)), worst])
    return _table(
        "SAD of `high` relative to the bare mask, and the masks with which it is over 2 % worse",
        ["", "all masks", "worse"],
        rows,
    )


def _incidents(results: Sequence[Result]) -> str:
    lines = [
        f"- {one.picture}, {one.hint}, {one.method}: {'; '.join(filter(None, (one.failed, *one.notes)))}"
        for one in results
        if one.failed or one.notes
    ]
    return "Failures, falls back to the bare mask, warnings:\n\n" + ("\n".join(lines) or "none")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return f"{title}:\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)
