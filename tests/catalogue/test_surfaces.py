"""Surfaces of measured kernels: multilinear between knots, constant beyond them; and the file they are shipped in."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilemma.catalogue import surfaces
from trilemma.catalogue.catalogue import load_catalogue
from trilemma.catalogue.surfaces import Surface, load_surfaces

law = settings(max_examples=60, deadline=None)
SHARES = st.floats(0, 1)
FEATURES = st.floats(-10, 30)
OUT_OF_REACH = 1e9  # beyond the knots of every surface drawn here


@st.composite
def axes(draw, most=5):
    """Ascending knots at least a quarter apart, one or more."""
    gaps = draw(st.lists(st.floats(0.25, 8), max_size=most - 1))
    return np.cumsum([draw(st.floats(-4, 8)), *gaps])


@st.composite
def drawn(draw, dimensions=None):
    """A surface of one to three dimensions, or of so many."""
    knots = tuple(draw(axes()) for _ in range(dimensions or draw(st.integers(1, 3))))
    shape = tuple(k.size for k in knots)
    seed = draw(st.integers(0, 2**32 - 1))
    return of(knots, np.random.default_rng(seed).normal(size=shape))


def of(knots, values) -> Surface:
    rows = tuple(np.asarray(k, float) for k in knots)
    return Surface(knots=rows, values=np.asarray(values, float), spread=(0.9, 1.1), points=1)


def by_hand(knots, values, at) -> float:
    """One axis after the other with numpy's own interpolation, which is constant beyond the ends too."""
    if not knots:
        return float(values)
    along = [by_hand(knots[1:], part, at[1:]) for part in values]
    return float(np.interp(at[0], knots[0], along))


# Laws --------------------------------------------------------------------------------------------------------------


@law
@given(drawn())
def test_a_surface_goes_through_its_knots(surface):
    at = np.meshgrid(*surface.knots, indexing="ij")
    assert surface.log_ratio(*at) == pytest.approx(surface.values, abs=1e-12)


@law
@given(drawn(), st.data())
def test_between_the_knots_it_is_multilinear_and_beyond_them_constant(surface, data):
    at = [data.draw(FEATURES) for _ in surface.knots]
    assert float(surface.log_ratio(*at)) == pytest.approx(by_hand(surface.knots, surface.values, at), abs=1e-9)


@law
@given(drawn(dimensions=3), st.data())
def test_three_dimensions_against_the_eight_corners_of_a_cell(surface, data):
    cell = [data.draw(st.integers(0, max(0, k.size - 2))) for k in surface.knots]
    shares = [data.draw(SHARES) for _ in surface.knots]
    ends = [(i, min(i + 1, k.size - 1)) for i, k in zip(cell, surface.knots, strict=True)]
    at = [(1 - s) * k[i] + s * k[j] for s, k, (i, j) in zip(shares, surface.knots, ends, strict=True)]
    expected = sum(
        (a[0] * b[0] * c[0]) * surface.values[a[1], b[1], c[1]]
        for a in zip((1 - shares[0], shares[0]), ends[0], strict=True)
        for b in zip((1 - shares[1], shares[1]), ends[1], strict=True)
        for c in zip((1 - shares[2], shares[2]), ends[2], strict=True)
    )
    assert float(surface.log_ratio(*at)) == pytest.approx(expected, abs=1e-9)


@law
@given(drawn(), st.data())
def test_it_stays_between_the_lowest_and_the_highest_knot(surface, data):
    at = [data.draw(FEATURES) for _ in surface.knots]
    assert surface.values.min() - 1e-9 <= float(surface.log_ratio(*at)) <= surface.values.max() + 1e-9


@law
@given(drawn(), st.data())
def test_beyond_the_ends_of_an_axis_the_last_knot_holds(surface, data):
    axis = data.draw(st.integers(0, len(surface.knots) - 1))
    at = [data.draw(FEATURES) for _ in surface.knots]
    for end, far in ((0, -OUT_OF_REACH), (-1, OUT_OF_REACH)):
        at_end, beyond = list(at), list(at)
        at_end[axis], beyond[axis] = float(surface.knots[axis][end]), far
        assert float(surface.log_ratio(*beyond)) == pytest.approx(float(surface.log_ratio(*at_end)), abs=1e-12)


@law
@given(drawn(dimensions=2), st.lists(FEATURES, min_size=1, max_size=5), st.lists(FEATURES, min_size=1, max_size=5))
def test_features_broadcast_and_each_place_is_read_alone(surface, first, second):
    together = surface.log_ratio(np.array(first)[:, None], np.array(second))
    assert together.shape == (len(first), len(second))
    alone = [[float(surface.log_ratio(x, y)) for y in second] for x in first]
    assert together == pytest.approx(np.array(alone), abs=1e-12)


@law
@given(drawn(), st.lists(st.floats(-3, 3), min_size=2, max_size=8))
def test_rising_values_make_a_rising_surface(surface, where):
    rising = of(surface.knots, np.cumsum(np.abs(surface.values), axis=0))
    rest = [float(k[0]) for k in rising.knots[1:]]
    read = rising.log_ratio(np.sort(np.array(where)), *rest)
    assert (np.diff(read) >= -1e-12).all()


# Worked examples ---------------------------------------------------------------------------------------------------


def test_halfway_between_two_knots():
    surface = of([[0, 2, 10]], [1.0, 3.0, -1.0])
    assert surface.log_ratio(np.array([-5, 0, 1, 2, 6, 10, 11])).tolist() == [1, 1, 2, 3, 1, -1, -1]


def test_an_axis_of_one_knot_says_nothing():
    surface = of([[0, 4], [7]], [[1.0], [3.0]])
    assert surface.log_ratio(1.0, np.array([-100.0, 6.9, 7.0, 7.1, 100.0])).tolist() == [1.5] * 5
    assert float(of([[7]], [0.25]).log_ratio(3.0)) == 0.25


def test_numbers_are_enough_where_one_shape_is_asked_for():
    found = of([[0, 1], [0, 1]], [[0, 1], [2, 5]]).log_ratio(0.5, 0.5)
    assert found.shape == ()
    assert float(found) == 2.0


def test_no_shapes_at_all():
    assert of([[0, 1]], [0, 1]).log_ratio(np.zeros(0)).shape == (0,)


@pytest.mark.parametrize("features", [(1.0,), (1.0, 1.0, 1.0)])
def test_every_dimension_wants_one_feature(features):
    with pytest.raises(ValueError, match="zip"):
        of([[0, 1], [0, 1]], [[0, 1], [2, 5]]).log_ratio(*features)


# The file ----------------------------------------------------------------------------------------------------------


def test_surfaces_come_back_as_they_were_written(tmp_path, monkeypatch):
    index = [
        {"key": ["gemm", "x100", "any", "bf16"], "knots": [[0, 1], [3, 4, 5]], "offset": 0, "spread": [0.9, 1.2],
         "points": 11},
        {"key": ["moe", "x100", "vllm", "fp8"], "knots": [[2]], "offset": 6, "spread": [0.8, 1.1], "points": 3},
    ]  # fmt: skip
    values = np.array([1, 2, 3, 4, 5, 6, 7], np.float32)
    text = np.frombuffer(json.dumps(index).encode(), np.uint8)
    np.savez_compressed(tmp_path / "some.npz", values=values, index=text)
    monkeypatch.setattr(surfaces, "FILE", str(tmp_path / "some.npz"))
    found = load_surfaces.__wrapped__()
    assert list(found) == [("gemm", "x100", "any", "bf16"), ("moe", "x100", "vllm", "fp8")]
    gemm, moe = found.values()
    assert gemm.values.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert [k.tolist() for k in gemm.knots] == [[0, 1], [3, 4, 5]]
    assert (gemm.spread, gemm.points) == ((0.9, 1.2), 11)
    assert gemm.values.dtype == np.float64  # sums over corners lose nothing
    assert moe.values.tolist() == [7]
    assert float(gemm.log_ratio(1, 4.5)) == 5.5


def test_shipped_surfaces_are_sound():
    """Finite, on ascending knots, around their own kernels, and of accelerators that the catalogue has."""
    known = load_catalogue().accelerators
    found = load_surfaces()
    assert found
    dimensions = {}
    for (operation, accelerator, engine, form), surface in found.items():
        name = f"{operation} {accelerator} {engine} {form}"
        assert accelerator in known, name
        assert engine in {"any", "vllm", "trtllm", "sglang"}, name
        assert surface.values.shape == tuple(k.size for k in surface.knots), name
        assert all(a < b for knots in surface.knots for a, b in pairwise(knots)), name
        assert np.isfinite(surface.values).all(), name
        low, high = surface.spread
        assert 0 < low <= 1 <= high, name
        assert surface.points > 0, name
        dimensions.setdefault(operation, set()).add(len(surface.knots))
    assert all(len(sizes) == 1 for sizes in dimensions.values()), dimensions
