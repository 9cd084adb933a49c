"""Fitting a surface on a grid, and the file they are shipped in."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import cg, spsolve

from trilemma.catalogue.surfaces import Surface

ROBUST_SCALE = 0.1  # residuals of the logarithm beyond this count linearly
ROUNDS = 6


def weights(features: Sequence[np.ndarray], knots: Sequence[np.ndarray]) -> sparse.csr_matrix:
    """(rows, grid points) multilinear weights, constant beyond the knots."""
    n = len(features[0])
    strides = np.cumprod([1] + [len(k) for k in knots[::-1]])[:-1][::-1]
    columns, shares = np.zeros((n, 1), np.int64), np.ones((n, 1))
    for x, k, stride in zip(features, knots, strides, strict=True):
        below = np.clip(np.searchsorted(k, x, side="right") - 1, 0, max(0, len(k) - 2))
        above = np.minimum(below + 1, len(k) - 1)
        share = np.clip((x - k[below]) / np.maximum(k[above] - k[below], 1e-12), 0, 1)
        columns = np.concatenate([columns + (below * stride)[:, None], columns + (above * stride)[:, None]], axis=1)
        shares = np.concatenate([shares * (1 - share)[:, None], shares * share[:, None]], axis=1)
    rows = np.repeat(np.arange(n), columns.shape[1])
    shape = (n, int(np.prod([len(k) for k in knots])))
    return sparse.csr_matrix((shares.ravel(), (rows, columns.ravel())), shape=shape)


def roughness(knots: Sequence[np.ndarray]) -> sparse.csr_matrix:
    """Second differences along every axis (first differences where an axis has two knots), stacked."""
    identities = [sparse.identity(len(k)) for k in knots]
    parts = []
    for d, k in enumerate(knots):
        if len(k) < 2:
            continue
        order = 2 if len(k) > 2 else 1
        difference = sparse.csr_matrix(np.diff(np.eye(len(k)), n=order, axis=0))
        factors = [difference if i == d else identities[i] for i in range(len(knots))]
        whole = factors[0]
        for f in factors[1:]:
            whole = sparse.kron(whole, f)
        parts.append(whole)
    return sparse.vstack(parts).tocsr()


def fit_surface(
    features: Sequence[np.ndarray],
    log_ratio: np.ndarray,
    knots: Sequence[Sequence[float]],
    *,
    smooth: float = 0.3,
    row_weight: np.ndarray | None = None,
) -> Surface:
    """The surface through `log_ratio` = log(measured / base), robust, with `smooth` the weight of a second difference
    against a row's residual per average number of rows at a grid point."""
    grid = [np.asarray(k, float) for k in knots]
    w = weights(features, grid)
    size = w.shape[1]
    rough = roughness(grid)
    importance = np.ones(len(log_ratio)) if row_weight is None else row_weight
    penalty = smooth * max(1.0, float(importance.sum()) / size) * (rough.T @ rough) + 1e-6 * sparse.identity(size)
    values = np.full(size, np.average(log_ratio, weights=importance))
    for _ in range(ROUNDS):
        residual = (log_ratio - w @ values) / ROBUST_SCALE
        weight = importance / np.sqrt(1 + residual**2)
        scaled = w.multiply(weight[:, None]).tocsr()
        values = _solve((w.T @ scaled + penalty).tocsr(), scaled.T @ log_ratio, values)
    ratio = np.exp(log_ratio - w @ values)
    low, high = np.quantile(ratio, [0.1, 0.9])
    shape = tuple(len(k) for k in grid)
    return Surface(knots=tuple(grid), values=values.reshape(shape), spread=(low, high), points=len(log_ratio))


def _solve(matrix: sparse.csr_matrix, right: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Conjugate gradients, a hundred times faster than factorising a grid of four dimensions; which is the way out."""
    steps = sparse.diags(1 / matrix.diagonal())
    values, failed = cg(matrix, right, x0=start, rtol=1e-7, maxiter=4000, M=steps)
    return spsolve(matrix.tocsc(), right) if failed else values


def write(path: Path, surfaces: Mapping[tuple[str, str, str, str], Surface]) -> None:
    """All surfaces into one file: a flat float32 array and an index, in the order of the keys."""
    index, parts, offset = [], [], 0
    for key in sorted(surfaces):
        s = surfaces[key]
        index.append(
            {
                "key": list(key),
                "knots": [[round(float(x), 4) for x in k] for k in s.knots],
                "offset": offset,
                "spread": [round(float(x), 4) for x in s.spread],
                "points": int(s.points),
            }
        )
        parts.append(s.values.astype(np.float32).ravel())
        offset += s.values.size
    text = np.frombuffer(json.dumps(index, separators=(",", ":")).encode(), np.uint8)
    with path.open("wb") as file:
        np.savez_compressed(file, values=np.concatenate(parts), index=text)
