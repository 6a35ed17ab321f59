from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from core.arrays import Rgb
from core.matting.closed_form import Laplacian, MatrixFreeLaplacian, SparseLaplacian, solve
from core.matting.compiled import pymatting
from core.matting.guided_filter import Plane, apply, as_guide
from core.matting.tiles import shrink
from tests.fakes.scenes import fur

SHAPE = (14, 17)
EVERYWHERE = np.ones(SHAPE, np.bool_)


def texture(seed: int = 0) -> Rgb:
    """A picture with so much contrast in every window that epsilon hardly counts."""
    return np.random.default_rng(seed).integers(0, 256, (*SHAPE, 3), np.uint8)


def noise(seed: int = 1) -> Plane:
    return np.random.default_rng(seed).uniform(0, 1, SHAPE).astype(np.float32)


def dense(laplacian: Laplacian) -> NDArray[np.float64]:
    """Return the matrix, column by column."""
    units = np.eye(noise().size, dtype=np.float32)
    return np.stack([laplacian.apply(unit.reshape(SHAPE)).ravel() for unit in units], axis=1).astype(np.float64)


def matrix_free() -> Laplacian:
    return MatrixFreeLaplacian(as_guide(texture()))


def sparse() -> Laplacian:
    return SparseLaplacian(texture(), EVERYWHERE)


KINDS = pytest.mark.parametrize("make", [matrix_free, sparse])


@KINDS
def test_a_laplacian_is_symmetric_and_positive_semidefinite(make: Callable[[], Laplacian]) -> None:
    matrix = dense(make())
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-4)
    assert np.linalg.eigvalsh((matrix + matrix.T) / 2).min() > -1e-4
    assert 0.3 < np.diag(matrix).max() <= 1.001


@KINDS
def test_what_is_linear_in_the_colours_costs_nothing(make: Callable[[], Laplacian]) -> None:
    red, green, blue = as_guide(texture())
    laplacian = make()
    cost = float(np.abs(laplacian.apply(noise())).max())
    for plane in (np.full(SHAPE, 0.7, np.float32), 0.2 + 0.5 * red - 0.3 * green + 0.1 * blue):
        assert float(np.abs(laplacian.apply(plane)).max()) < 5e-3 * cost


def test_the_matrix_that_is_never_built_is_pymattings() -> None:
    # pymatting's epsilon is that of a window's mean, as ours is.
    built = pymatting().cf_laplacian(texture() / 255, epsilon=1e-5, radius=1).toarray() / 9
    np.testing.assert_allclose(dense(matrix_free()), built, atol=1e-3)


def test_the_sparse_one_has_the_rows_of_the_unknown_pixels_alone() -> None:
    unknown = noise(2) > 0.5
    rows = SparseLaplacian(texture(), unknown).apply(noise())
    np.testing.assert_allclose(rows[unknown], sparse().apply(noise())[unknown], atol=1e-5)
    assert (rows[~unknown] == 0).all()


@pytest.mark.parametrize("kind", [MatrixFreeLaplacian, SparseLaplacian])
@pytest.mark.parametrize("weight", [0.02, 0.2])
def test_the_solution_is_that_of_the_linear_system(kind: type, weight: float) -> None:
    scene = fur()
    crop = slice(130, 130 + SHAPE[0]), slice(84, 84 + SHAPE[1])
    rgb = np.ascontiguousarray(scene.rgb[crop])
    prior = np.roll(cv2.GaussianBlur(scene.alpha, (0, 0), 2), 2, axis=1)[crop].copy()
    unknown = noise(2) > 0.3
    laplacian = kind(as_guide(rgb)) if kind is MatrixFreeLaplacian else kind(rgb, unknown)
    alpha, iterations = solve(
        laplacian, prior, unknown, confidence=np.full(SHAPE, weight, np.float32), max_iterations=100
    )
    matrix, free = dense(laplacian), unknown.ravel()
    system = matrix[np.ix_(free, free)] + weight * np.eye(free.sum())
    known = matrix[np.ix_(free, ~free)] @ prior.ravel()[~free]
    exact = np.linalg.solve(system, weight * prior.ravel()[free] - known).clip(0, 1)
    assert 0 < iterations < 100
    assert np.abs(exact - prior.ravel()[free]).max() > 0.1
    np.testing.assert_allclose(alpha.ravel()[free], exact, atol=0.015)
    np.testing.assert_array_equal(alpha[~unknown], prior[~unknown])


def test_a_prior_is_kept_the_more_the_greater_its_confidence() -> None:
    prior = noise()
    moved = [
        np.abs(solve(matrix_free(), prior, EVERYWHERE, confidence=confidence, max_iterations=100)[0] - prior).mean()
        for confidence in (np.full(SHAPE, value, np.float32) for value in (0.01, 0.3, 1000))
    ]
    assert moved[0] > 1.2 * moved[1] > 1.2 * moved[2]
    assert moved[2] < 1e-3


def test_confidence_counts_pixel_by_pixel() -> None:
    prior, confidence = noise(), np.full(SHAPE, 0.001, np.float32)
    confidence[:, :8] = 1000
    alpha, _ = solve(matrix_free(), prior, EVERYWHERE, confidence=confidence, max_iterations=100)
    assert np.abs(alpha - prior)[:, :8].max() < 0.01
    assert np.abs(alpha - prior)[:, 8:].mean() > 0.05


@pytest.mark.parametrize("limit", [0, 3])
def test_the_solver_stops_at_its_limit(limit: int) -> None:
    prior = noise()
    alpha, iterations = solve(
        matrix_free(), prior, EVERYWHERE, confidence=np.full(SHAPE, 0.01, np.float32), max_iterations=limit
    )
    assert iterations == limit
    assert np.array_equal(alpha, prior) == (limit == 0)


def test_nothing_unknown_and_nothing_wrong_take_no_iteration() -> None:
    confidence = np.full(SHAPE, 0.1, np.float32)
    for prior, unknown in ((noise(), ~EVERYWHERE), (np.ones(SHAPE, np.float32), EVERYWHERE)):
        before = prior.copy()
        alpha, _ = solve(matrix_free(), prior, unknown, confidence=confidence, max_iterations=20)
        np.testing.assert_allclose(alpha, before, atol=1e-3)
        np.testing.assert_array_equal(prior, before)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 2), (3, 3)])
def test_pictures_smaller_than_a_window_are_solved(shape: tuple[int, int]) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    unknown, prior = np.ones(shape, np.bool_), np.full(shape, 0.4, np.float32)
    for laplacian in (MatrixFreeLaplacian(as_guide(rgb)), SparseLaplacian(rgb, unknown)):
        alpha, _ = solve(laplacian, prior, unknown, confidence=np.full(shape, 0.1, np.float32), max_iterations=9)
        np.testing.assert_allclose(alpha, prior, atol=1e-2)


def test_the_model_of_a_reduced_alpha_holds_at_full_scale() -> None:
    scene = fur()
    rgb, alpha = shrink(scene.rgb, 2), shrink(scene.alpha, 2)
    model = MatrixFreeLaplacian(as_guide(rgb)).upsampling_model(alpha)
    assert np.abs(apply(model, as_guide(rgb)) - alpha).mean() < 0.01
