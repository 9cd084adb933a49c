"""Pareto fronts and ranking of points, whatever they stand for."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def non_dominated(points: FloatArray) -> npt.NDArray[np.bool_]:
    """(n, d) -> (n,). Which points no other point beats: at most as large in every column and smaller in one.

    Smaller is better in every column; equal points are all kept; NaN and infinite points are never kept.

    >>> non_dominated(np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0]])).tolist()
    [True, True, False]
    """
    n = points.shape[0]
    kept: npt.NDArray[np.bool_] = np.asarray(np.isfinite(points).all(axis=1))
    for i in range(n):
        if kept[i]:
            no_worse = (points <= points[i]).all(axis=1)
            better = (points < points[i]).any(axis=1)
            kept[i] = not (no_worse & better).any()
    return kept
