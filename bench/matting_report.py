"""Format the results of the matting benchmark as Markdown."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final, TypeAlias

from bench.errors import Errors
from bench.matting_methods import BARE, MASK_METHODS, REMBG, TRIMAP_METHODS

PICTURE: Final = "picture"
BAND: Final = "band"

_ERRORS: Final = ("sad", "mse", "gradient", "connectivity")
_GOALS: Final = {
    "high": {"sad": 0.65, "mse": 0.40, "gradient": 0.85},
    "ultra_high": {"sad": 0.60, "mse": 0.35, "gradient": 0.80},
}
_NEVER_WORSE: Final = 1.02
_LEAST: Final = 1e-6  # avoids division by 0


@dataclass(frozen=True)
class Result:
    """The result of a method for one picture and one hint.

    Attributes:
        hint: size and fault of the mask (``320-clean``), or name of the trimap.
        errors: errors by region; None if the method failed.
        peak_bytes: peak memory over all hints of the picture.
        notes: warnings of the method.
        fell_back: True if the method failed and returned the mask instead of its own alpha.
        failed: reason of the failure; None if there was none.
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
"""Results by picture, hint, and method."""


def markdown(results: Sequence[Result], where: str) -> str:
    """Return the report: goals, ratios to rembg, means, ratios per picture, failures, and warnings."""
    keyed = {(one.picture, one.hint, one.method): one for one in results}
    masks = list(dict.fromkeys(one.hint for one in results if one.method in MASK_METHODS))
    pictures = list(dict.fromkeys(one.picture for one in results))
    sections = [
        f"Platform: {where}.",
        f"{len(pictures)} pictures, {len(masks)} masks each. Ratios are geometric means over pictures and masks,"
        " except where rembg fell back to the bare mask.",
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
    """Return the geometric mean of a method's error divided by its peer's.

    Skips the cases in which either method failed or fell back. Returns None if no case is left.

    Args:
        keyed: all results.
        method: method in the numerator.
        peer: method in the denominator.
        cases: pairs of picture and hint.
        region: key of ``Result.errors``.
        error: field of ``Errors``.
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
    methods = [method for method in MASK_METHODS if method != REMBG]
    rows = []
    for label, hints in _groups(masks):
        cases = [(picture, hint) for picture in pictures for hint in hints]
        rows.append([label, *(_ratio_cell(keyed, method, cases, region) for method in methods)])
    title = f"Error over the {region} relative to rembg's alpha matting: SAD / MSE / gradient / connectivity"
    return _table(title, ["mask", *methods], rows)


def _ratio_cell(keyed: Keyed, method: str, cases: Sequence[tuple[str, str]], region: str) -> str:
    return " / ".join(_number(ratio(keyed, method, REMBG, cases, region, error)) for error in _ERRORS)


def _groups(masks: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield labels and masks: all masks, the masks of each size, the masks of each fault, and each single mask."""
    yield "all", list(masks)
    parts = [dict.fromkeys(name.split("-", 1)[part] for name in masks) for part in (0, 1)]
    yield from ((f"{side} px", [name for name in masks if name.startswith(f"{side}-")]) for side in parts[0])
    yield from ((fault, [name for name in masks if name.endswith(f"-{fault}")]) for fault in parts[1])
    yield from ((name.replace("-", " px, "), [name]) for name in masks)


def _means(results: Sequence[Result]) -> str:
    rows = [
        _means_of(method, [one for one in results if one.method == method])
        for method in (*MASK_METHODS, *TRIMAP_METHODS)
    ]
    heads = [*(f"{_title(error)}" for error in _ERRORS), "MSE, band", "s", "CPU s", "MB", "runs", "fell back", "failed"]
    title = (
        "Means over pictures and masks; pymatting's over pictures, from trimap1. Errors over the picture; SAD, gradient"
        " and connectivity in thousands, MSE in thousandths. MB: peak memory added"
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
    methods = [method for method in MASK_METHODS if method != REMBG]
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
        "SAD of `high` relative to the bare mask, and the masks for which it is over 2 % worse",
        ["", "all masks", "worse"],
        rows,
    )


def _incidents(results: Sequence[Result]) -> str:
    lines = [
        f"- {one.picture}, {one.hint}, {one.method}: {'; '.join(filter(None, (one.failed, *one.notes)))}"
        for one in results
        if one.failed or one.notes
    ]
    return "Failures, fallbacks to the bare mask, and warnings:\n\n" + ("\n".join(lines) or "none")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return f"{title}:\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)
