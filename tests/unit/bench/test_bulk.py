"""Pictures of the bulk benchmark: the cache must not know any of them."""

from hashlib import sha256
from pathlib import Path

import pytest

from bench import bulk
from bench.bulk import Round, Sample


def digests(folder: Path) -> list[str]:
    return [sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())]


def test_no_picture_of_a_round_or_of_another_round_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_MEGAPIXELS", (0.02,))
    made = [digests(bulk._folder(tmp_path / str(seed), 9, seed, None)) for seed in (1, 2)]
    assert len({*made[0], *made[1]}) == 18
    assert digests(bulk._folder(tmp_path / "again", 9, 1, None)) == made[0]


def test_five_hundred_of_the_small_pictures_differ(tmp_path: Path) -> None:
    assert len(set(digests(bulk._many(tmp_path / "many", 700, None)))) == 500


def test_the_ratio_is_the_median_of_the_rounds_and_not_that_of_the_medians() -> None:
    text = bulk._compared([Round(10, 5, 10), Round(30, 10, 20), Round(90, 200, 100)], pictures=30)
    assert "| pbr bulk, high | 30.0 | 60 | 1.00 (0.90 to 1.50) |" in text
    assert "| pbr bulk, standard | 10.0 | 180 | 0.50 (0.50 to 2.00) |" in text


def test_the_rate_counts_from_the_start_of_the_long_run() -> None:
    text = bulk._watched([Sample(30.0, 100, 1, 2, 3), Sample(120.0, 200, 4, 5, 6)])
    assert "| 100 | 200 | 1 | 2 | 3 |" in text and "| 200 | 100 | 4 | 5 | 6 |" in text
