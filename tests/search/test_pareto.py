"""The Pareto front against its definition."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from trilemma.search.pareto import non_dominated

few = st.sampled_from([0.0, 1.0, 2.0, 3.0, -1.5, 1e9])  # ties matter more than values
clouds = arrays(float, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12), elements=few)


def dominates(a, b):
    return bool((a <= b).all() and (a < b).any())


@given(clouds)
def test_kept_points_are_those_no_other_point_beats(points):
    expected = [not any(dominates(other, p) for other in points) for p in points]
    np.testing.assert_array_equal(non_dominated(points), expected)


@given(clouds)
def test_something_is_kept_and_it_beats_everything_dropped(points):
    kept = non_dominated(points)
    assert kept.any()
    front = points[kept]
    assert all(any(dominates(f, p) for f in front) for p in points[~kept])
    assert non_dominated(front).all()


@given(clouds, st.randoms(use_true_random=False))
def test_the_order_of_points_and_columns_does_not_matter(points, random):
    rows, columns = list(range(points.shape[0])), list(range(points.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    np.testing.assert_array_equal(non_dominated(points[rows][:, columns]), non_dominated(points)[rows])


@given(clouds, st.floats(0.1, 10), st.floats(-100, 100))
def test_scale_and_origin_do_not_matter(points, scale, shift):
    kept = non_dominated(points)
    moved = non_dominated(points * 2.0 ** round(scale))
    np.testing.assert_array_equal(moved, kept)
    ranks = np.stack([np.unique(column, return_inverse=True)[1] for column in points.T], axis=1)
    np.testing.assert_array_equal(non_dominated(ranks + shift), kept)


@given(clouds)
def test_equal_points_share_their_fate(points):
    kept = non_dominated(np.concatenate([points, points]))
    np.testing.assert_array_equal(kept[: len(points)], kept[len(points) :])
    np.testing.assert_array_equal(kept[: len(points)], non_dominated(points))


def test_points_that_are_not_numbers_are_never_kept_and_beat_nobody():
    points = np.array([[1.0, 5.0], [np.nan, 0.0], [np.inf, 0.0], [0.0, np.nan]])
    np.testing.assert_array_equal(non_dominated(points), [True, False, False, False])
    assert not non_dominated(points[1:]).any()


def test_no_points_and_one():
    assert non_dominated(np.empty((0, 3))).tolist() == []
    assert non_dominated(np.zeros((1, 3))).tolist() == [True]
