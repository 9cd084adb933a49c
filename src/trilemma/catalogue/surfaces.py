"""Smooth surfaces of measured kernel times: the logarithm of measured over base time on a coarse grid of shapes.

A kernel's base time is a plain roofline plus a launch (written beside each kernel in `latency/`); a surface says how
far real kernels of one accelerator, engine and number format are from it, as a function of the shape. They are fitted
by benchmarks/fit_surfaces.py and shipped as data/kernels.npz: one flat float32 array and an index.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from io import BytesIO
from math import prod
from typing import Any

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
        where = [np.asarray(f, np.float64) for f in features]
        # (corners, *shape) into the flat values, each feature as large as it comes until it meets the others.
        index = np.zeros((1,) * (1 + max(x.ndim for x in where)), np.intp)
        weight = np.ones(index.shape)
        for knots, x in zip(self.knots, where, strict=True):
            below = knots[1:-1].searchsorted(x, side="right")
            above = np.minimum(below + 1, knots.size - 1)
            under = knots[below]
            width = np.where(above > below, knots[above] - under, 1.0)
            share = np.minimum(np.maximum((x - under) / width, 0.0), 1.0)
            index = np.concatenate([index * knots.size + below, index * knots.size + above])
            weight = np.concatenate([weight * (1 - share), weight * share])
        total: FloatArray = (self.values.ravel()[index] * weight).sum(axis=0)
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A surface and where it is from: FITTED on this very accelerator, engine and format, DERIVED from a relative."""

    surface: Surface
    source: Source
    note: str


class _Shipped(Mapping[tuple[str, str, str, str], Surface]):
    """The shipped surfaces, each made when it is first asked for: a plan needs some dozen of a thousand."""

    def __init__(self, values: npt.NDArray[np.float32], index: Iterable[Mapping[str, Any]]) -> None:
        self._values = values
        self._entries = {tuple(entry["key"]): entry for entry in index}
        self._made: dict[tuple[str, ...], Surface] = {}

    def __getitem__(self, key: tuple[str, str, str, str]) -> Surface:
        if key not in self._made:
            entry = self._entries[key]
            knots = tuple(np.array(k, np.float64) for k in entry["knots"])
            shape = tuple(k.size for k in knots)
            values = self._values[entry["offset"] : entry["offset"] + prod(shape)].reshape(shape).astype(np.float64)
            self._made[key] = Surface(knots=knots, values=values, spread=tuple(entry["spread"]), points=entry["points"])
        return self._made[key]

    def __iter__(self) -> Iterator[tuple[str, str, str, str]]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


@cache
def load_surfaces() -> Mapping[tuple[str, str, str, str], Surface]:
    """(operation, accelerator, engine, format) -> surface, as shipped."""
    path = resources.files("trilemma.catalogue").joinpath("data", FILE)
    with np.load(BytesIO(path.read_bytes())) as file:
        return _Shipped(file["values"], json.loads(file["index"].tobytes()))
