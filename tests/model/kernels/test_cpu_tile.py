"""The matrix product that the recurrence is made of, against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from asr.model.kernels.cpu_tile import COLUMNS, add_product, to_panels


def panels_of(weights: np.ndarray) -> np.ndarray:
    """`(K, panels * 16)` as `(panels, K, 16)`."""
    depth, columns = weights.shape
    split = weights.reshape(depth, columns // COLUMNS, COLUMNS)
    return np.ascontiguousarray(split.transpose(1, 0, 2))


@pytest.mark.parametrize("rows", range(15))  # every way to cut rows into tiles
@pytest.mark.parametrize("depth", [1, 7, 259])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-12)])
@pytest.mark.parametrize("backwards", [False, True])
def test_adds_the_product(rows, depth, dtype, tolerance, backwards):
    generator = np.random.default_rng(rows)
    a = generator.standard_normal((rows, depth)).astype(dtype)
    columns = 7 * COLUMNS  # a group of four panels and of two, and one alone
    weights = generator.standard_normal((depth, columns)).astype(dtype)
    before = generator.standard_normal((rows, columns)).astype(dtype)
    out = before.copy()
    add_product(out, out, a, panels_of(weights), backwards)
    np.testing.assert_allclose(out, before + a @ weights, atol=tolerance)


def test_starts_from_one_row_for_all_and_takes_a_transposed_factor():
    generator = np.random.default_rng(0)
    a, start = generator.standard_normal((5, 9)), generator.standard_normal((1, COLUMNS))
    weights = generator.standard_normal((5, COLUMNS))
    out = np.full((9, COLUMNS), np.nan)
    add_product(out, start, a.T, panels_of(weights), False)
    np.testing.assert_allclose(out, start + a.T @ weights, atol=1e-12)


@pytest.mark.parametrize("columns", [1, 16, 40])
def test_a_row_goes_to_panels(columns):
    panels = np.zeros((3, 4, COLUMNS), np.float32)
    row = np.arange(1, columns + 1, dtype=np.float32)
    to_panels(panels, 2, row)
    np.testing.assert_array_equal(panels[:, 2].ravel()[:columns], row)
    assert np.count_nonzero(panels) == columns


def test_writes_nothing_beyond_the_rows_it_is_given():
    frame = np.zeros((9, 4 * COLUMNS), np.float32)
    ones = np.ones((5, 8), np.float32)
    out = frame[2:7, COLUMNS : 3 * COLUMNS]
    add_product(out, out, ones, panels_of(np.ones((8, 32), np.float32)), False)
    expected = np.zeros_like(frame)
    expected[2:7, COLUMNS : 3 * COLUMNS] = 8
    np.testing.assert_array_equal(frame, expected)


def test_a_row_is_the_same_number_in_any_company():
    generator = np.random.default_rng(0)
    a = generator.standard_normal((13, 300)).astype(np.float32)
    panels = panels_of(generator.standard_normal((300, 32)).astype(np.float32))
    together = np.zeros((13, 32), np.float32)
    add_product(together, together, a, panels, False)
    for row in range(13):
        single = np.zeros((1, 32), np.float32)
        add_product(single, single, a[row : row + 1], panels, False)
        np.testing.assert_array_equal(single[0], together[row])
