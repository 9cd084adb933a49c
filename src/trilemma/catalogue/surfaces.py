"""Smooth surfaces of measured kernel times: the logarithm of measured over base time on a coarse grid of shapes.

A kernel's base time is a plain roofline plus a launch (written beside each kernel in `latency/`); a surface says how
far real kernels of one accelerator, engine and number format are from it, as a function of the shape. They are fitted
by benchmarks/fit_surfaces.py and shipped as data/kernels.npz: one flat float32 array and an index.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from io import BytesIO

import numpy as np
import numpy.typing as npt

from trilemma.catalogue.figure import Source

FloatArray = npt.NDArray[np.float64]
FILE = "kernels.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """log(measured / base) at the crossings of `knots`, one ascending row of log2 features per dimension.

    `spread` holds the 10% and 90% quantiles of measured / fitted over the `points` kernels it was fitted on.
    """

    knots: tuple[FloatArray, ...]
    values: FloatArray
    spread: tuple[float, float]
    points: int

    def log_ratio(self, *features: FloatArray | float) -> FloatArray:
        """Multilinear between knots, constant beyond them; features broadcast against each other."""
        where = np.broadcast_arrays(*(np.asarray(f, np.float64) for f in features))
        shape = where[0].shape
        index = np.zeros((1, where[0].size), np.intp)  # (corners, points) into the flat values
        weight = np.ones((1, where[0].size))
        for knots, x in zip(self.knots, where, strict=True):
            flat = x.ravel()
            below = np.searchsorted(knots[1:-1], flat, side="right")
            above = np.minimum(below + 1, knots.size - 1)
            width = np.where(above > below, knots[above] - knots[below], 1.0)
            share = np.clip((flat - knots[below]) / width, 0.0, 1.0)
            index = np.concatenate([index * knots.size + below, index * knots.size + above])
            weight = np.concatenate([weight * (1 - share), weight * share])
        total: FloatArray = (self.values.ravel()[index] * weight).sum(axis=0)
        return total.reshape(shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A surface and where it is from: FITTED on this very accelerator, engine and format, DERIVED from a relative."""

    surface: Surface
    source: Source
    note: str


@cache
def load_surfaces() -> Mapping[tuple[str, str, str, str], Surface]:
    """(operation, accelerator, engine, format) -> surface, as shipped."""
    path = resources.files("trilemma.catalogue").joinpath("data", FILE)
    with np.load(BytesIO(path.read_bytes())) as file:
        flat = file["values"]
        index = json.loads(file["index"].tobytes())
    surfaces = {}
    for entry in index:
        knots = tuple(np.array(k, np.float64) for k in entry["knots"])
        shape = tuple(k.size for k in knots)
        start = entry["offset"]
        values = flat[start : start + int(np.prod(shape))].reshape(shape).astype(np.float64)
        surfaces[tuple(entry["key"])] = Surface(
            knots=knots, values=values, spread=tuple(entry["spread"]), points=entry["points"]
        )
    return surfaces
