"""What measured runs of like configurations say: how far measured latency lies from the simulated, with how much doubt.

The logarithm of measured over simulated, over closed-loop runs, is taken to be a Gaussian process whose covariance is a
sum of products: two runs have more in common the more of engine, model, accelerator, precision, version, split, lengths
and load they share. A run of a model that nobody measured shares its engine's terms alone, and keeps the rest as
doubt: corrections fade where measurements end, and intervals widen. Two processes, one for TPOT and one for TTFT.

The measured runs lie in data/residuals.csv, the standard deviations of the terms in data/neighbours.toml; both are
written by benchmarks/fit_engines.py, which chooses the deviations on runs left out by deployment, model and
accelerator.
"""

import csv
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from importlib import resources
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trilemma.deployment.spec import Deployment
from trilemma.sim.interval import Error
from trilemma.sim.kept import kept_array

FloatArray = npt.NDArray[np.float64]
METRICS = ("tpot", "ttft")
ENGINE, LOAD = "engine", "load"
KINDS = (ENGINE, "model", "system", "precision")
BLOCK = 128  # columns of a product of matrices: enough to keep the processor busy
DECIMALS = 9  # what stays the same whatever other rows are asked about: products of matrices differ in their last bits
NORMAL_QUANTILES = (-1.2816, 1.2816)  # 10% and 90% of the normal distribution
NAMES = ("engine", "model", "system", "precision", "speculative", "engine_version")
# Factors that fade with distance: how many doublings apart two runs are when they share 61% (one length scale).
DOUBLINGS = {"tp": 1.5, "ep": 3.0, "dp": 2.0, "isl": 1.0, "osl": 1.5, "concurrency": 1.5}
FACTORS: Mapping[str, tuple[str, ...]] = {
    "split": ("tp", "ep", "dp"),
    "lengths": ("isl", "osl"),
    LOAD: ("concurrency",),
}
UNLIKE_ANY = "unlike any"  # a version that no measured run has


def traits_of(
    d: Deployment, *, isl: float, osl: float, concurrency: float, engine_version: str | None = None
) -> Mapping[str, object]:
    """What decides how much a deployment under a load has in common with measured runs. `concurrency` clients over the
    whole replica; `engine_version` "" is what runs of unknown version have, None is like none of them."""
    return {
        "engine": d.engine.name,
        "model": d.model.name,
        "system": d.accelerator.name,
        "precision": d.precision.name,
        "speculative": "mtp" if d.speculative_mtp else "",
        "engine_version": UNLIKE_ANY if engine_version is None else engine_version,
        "tp": d.parallelism.tensor * d.parallelism.pipeline,
        "ep": d.parallelism.expert,
        "dp": d.parallelism.data,
        "isl": isl,
        "osl": osl,
        "concurrency": concurrency,
    }


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What of (n,) runs decides how much they share: names, and sizes in log2."""

    names: Mapping[str, npt.NDArray[np.str_]]
    sizes: Mapping[str, FloatArray]
    _kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return int(self.sizes["tp"].size)

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, object]]) -> "Traits":
        """From mappings with all of NAMES and DOUBLINGS."""
        return cls(
            names={name: np.array([str(r[name]) for r in rows], dtype=np.str_) for name in NAMES},
            sizes={name: np.log2(np.array([float(str(r[name])) for r in rows])) for name in DOUBLINGS},
        )

    def joined(self, other: "Traits") -> "Traits":
        """These runs and the others behind them."""
        return Traits(
            names={name: np.concatenate([column, other.names[name]]) for name, column in self.names.items()},
            sizes={name: np.concatenate([column, other.sizes[name]]) for name, column in self.sizes.items()},
        )

    def only(self, index: npt.NDArray[np.intp]) -> "Traits":
        """The runs at `index`."""
        return Traits(
            names={name: column[index] for name, column in self.names.items()},
            sizes={name: column[index] for name, column in self.sizes.items()},
        )

    def under(self, engine: str) -> tuple[npt.NDArray[np.intp], "Traits"]:
        """Where the runs of an engine are, and what they share; kept."""
        return self._part(f"under {engine}", self.names[ENGINE] == engine)

    def beside(self, engine: str) -> tuple[npt.NDArray[np.intp], "Traits"]:
        """Where the runs of all other engines are, and what they share; kept."""
        return self._part(f"beside {engine}", self.names[ENGINE] != engine)

    def _part(self, key: str, where: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.intp], "Traits"]:
        if key not in self._kept:
            index = np.flatnonzero(where)
            self._kept[key] = index, self.only(index)
        found: tuple[npt.NDArray[np.intp], Traits] = self._kept[key]
        return found

    def but_for_load(self) -> tuple["Traits", npt.NDArray[np.intp]]:
        """The runs that differ in more than their load, and which of them each run is like; kept."""
        if "but for load" not in self._kept:
            columns = [self.distinct(factor)[1] for factor in (*NAMES, *FACTORS) if factor != LOAD]
            _, first, which = np.unique(np.stack(columns, axis=1), axis=0, return_index=True, return_inverse=True)
            self._kept["but for load"] = self.only(first), which.reshape(-1)
        found: tuple[Traits, npt.NDArray[np.intp]] = self._kept["but for load"]
        return found

    def distinct(self, factor: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
        """The distinct values of a factor and which of them each run has: runs share few names, lengths and loads.
        Kept."""
        if factor not in self._kept:
            if factor in NAMES:
                values, which = np.unique(self.names[factor], return_inverse=True)
            else:
                columns = [self.sizes[size] / DOUBLINGS[size] for size in FACTORS[factor]]
                values, which = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
            self._kept[factor] = values, which.reshape(-1)
        found: tuple[npt.NDArray[Any], npt.NDArray[np.intp]] = self._kept[factor]
        return found

    def shared(self, other: "Traits", factor: str) -> FloatArray:
        """(len(self), len(other)): 1 or 0 for a name, in between for what fades with distance."""
        (own, i), (others, j) = self.distinct(factor), other.distinct(factor)
        if factor in NAMES:
            return _spread(np.where(own[:, None] == others[None, :], 1.0, 0.0), i, j)
        apart = own[:, None, :] - others[None, :, :]
        together: FloatArray = np.exp(-0.5 * (apart * apart).sum(axis=2))
        return _spread(together, i, j)


def _spread(values: FloatArray, i: npt.NDArray[np.intp], j: npt.NDArray[np.intp]) -> FloatArray:
    """values[i, j] for every one of i and of j: twice as quick as by np.ix_."""
    return values.take(j, axis=1).take(i, axis=0)


def covariance(a: Traits, b: Traits, deviations: Mapping[str, float]) -> FloatArray:
    """(len(a), len(b)) sum over terms, such as "engine model load", of deviation^2 x the product of their factors,
    each of which a term names once."""
    return covariances(a, b, [deviations])[0]


def covariances(a: Traits, b: Traits, several: Sequence[Mapping[str, float]]) -> list[FloatArray]:
    """`covariance` under several sets of deviations.

    Most terms name the engine, so that only runs of the same engine have them in common: they are summed by blocks.
    """
    totals = _sums(a, b, [across(deviations) for deviations in several])
    within = [{t: d for t, d in deviations.items() if ENGINE in t.split()} for deviations in several]
    for engine in np.unique(a.names[ENGINE]):
        (i, mine), (j, theirs) = a.under(str(engine)), b.under(str(engine))
        for total, part in zip(totals, _sums(mine, theirs, within), strict=True):
            total[np.ix_(i, j)] += part
    return totals


def across(deviations: Mapping[str, float]) -> Mapping[str, float]:
    """The terms that runs of different engines can have in common."""
    return {term: d for term, d in deviations.items() if ENGINE not in term.split()}


def _sums(a: Traits, b: Traits, several: Sequence[Mapping[str, float]]) -> list[FloatArray]:
    """Sums over terms, the engine taken to be the same.

    Runs that differ in load alone share all but their load with others: terms with the load in them and terms without
    are summed over the distinct rest of the runs, and spread over the runs once.
    """
    (ours, i), (theirs, j) = a.but_for_load(), b.but_for_load()
    products: dict[tuple[str, ...], FloatArray] = {(): np.ones((len(ours), len(theirs)))}

    def product(factors: tuple[str, ...]) -> FloatArray:
        if factors not in products:
            products[factors] = product(factors[:-1]) * ours.shared(theirs, factors[-1])
        return products[factors]

    load = a.shared(b, LOAD)
    totals = []
    for deviations in several:
        lasting, fading = np.zeros((2, len(ours), len(theirs)))
        for term, deviation in deviations.items():
            factors = term.split()
            part = fading if LOAD in factors else lasting
            part += deviation**2 * product(tuple(f for f in factors if f not in (ENGINE, LOAD)))
        total = _spread(lasting, i, j)
        if fading.any():
            total += _spread(fading, i, j) * load
        totals.append(total)
    return totals


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """Mean and standard deviation (n,) of log(measured / simulated) of a metric, noise of one measurement included.

    `quantiles`: between which multiples of the deviation 80% of the runs left out have lain."""

    mean: FloatArray
    deviation: FloatArray
    quantiles: tuple[float, float]

    def of(self, i: int) -> Error:
        """The i-th run's."""
        return Error(mean=float(self.mean[i]), deviation=float(self.deviation[i]), quantiles=self.quantiles)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One metric's Gaussian process: the standard deviation of each term, of one measurement's noise, and between
    which multiples of a predicted deviation 80% of the runs left out have lain."""

    deviations: Mapping[str, float]
    noise: float
    quantiles: tuple[float, float] = NORMAL_QUANTILES


class Neighbours:
    """The measured runs and what they say of others."""

    def __init__(
        self,
        runs: Traits,
        *,
        log_ratios: Mapping[str, FloatArray],
        noises: Mapping[str, FloatArray],
        processes: Mapping[str, Process],
        inverses: FloatArray | None = None,
    ) -> None:
        """`log_ratios`, log(measured / simulated) of each run, and `noises`, the standard deviation of each, map the
        metrics to (n,). `inverses` (metrics, n, n) of the runs' covariances with their noise, where they are known."""
        self.runs = runs
        self.log_ratios = log_ratios
        self.noises = noises
        self.processes = processes
        found = _inverses(runs, processes, noises) if inverses is None else inverses
        self._inverse = dict(zip(processes, found, strict=True))
        self._pull = {metric: inverse @ log_ratios[metric] for metric, inverse in self._inverse.items()}
        self._own: dict[tuple[str, str], npt.NDArray[np.floating]] = {}

    def _own_block(self, metric: str, engine: str) -> npt.NDArray[np.floating]:
        """The block of an inverse that belongs to the runs of one engine."""
        key = metric, engine
        if key not in self._own:
            j, _ = self.runs.under(engine)
            self._own[key] = self._inverse[metric][np.ix_(j, j)]
        return self._own[key]

    def joined(self, runs: Traits, log_ratios: Mapping[str, FloatArray]) -> "Neighbours":
        """These runs and further ones, each with the noise of one measurement; `log_ratios` map the metrics to (n,)."""
        noises = {m: np.full(len(runs), process.noise) for m, process in self.processes.items()}
        return Neighbours(
            self.runs.joined(runs),
            log_ratios={m: np.concatenate([self.log_ratios[m], log_ratios[m]]) for m in self.processes},
            noises={m: np.concatenate([self.noises[m], noises[m]]) for m in self.processes},
            processes=self.processes,
        )

    def correct(self, wanted: Traits) -> Mapping[str, Correction]:
        """Corrections of `wanted` runs, by metric.

        What measured runs explain of a run that shares `k` with them, k^T inverse k, is taken apart: the block of the
        run's own engine, one product of matrices for all of the engine's runs, and the few runs of other engines that
        have anything in common with it.
        """
        found = {metric: (np.zeros(len(wanted)), np.zeros(len(wanted))) for metric in self.processes}
        every = [process.deviations for process in self.processes.values()]
        some = [across(deviations) for deviations in every]
        for engine in map(str, np.unique(wanted.names[ENGINE])):
            index, mine = wanted.under(engine)
            (j, like), (rest, unlike) = self.runs.under(engine), self.runs.beside(engine)
            kinds = _kinds(mine)
            parts = zip(found, _sums(mine, like, every), _sums(mine, unlike, some), strict=True)
            for metric, own, other in parts:
                mean, explained = found[metric]
                pull, inverse = self._pull[metric], self._inverse[metric]
                mean[index] = own @ pull[j] + other @ pull[rest]
                if j.size:
                    explained[index] = _quadratic(own, self._own_block(metric, engine))
                for kind in kinds:
                    near = np.flatnonzero(other[kind].any(axis=0))
                    shared, rows = other[kind][:, near], inverse[rest[near]]
                    through = 2 * own[kind] @ rows[:, j].T + shared @ rows[:, rest[near]]
                    explained[index[kind]] += _along_rows(through, shared)
        out = {}
        for metric, process in self.processes.items():
            mean, explained = found[metric]
            prior = sum(deviation**2 for deviation in process.deviations.values()) + process.noise**2
            left = np.sqrt(np.maximum(prior - explained, process.noise**2))
            out[metric] = Correction(
                mean=mean.round(DECIMALS), deviation=left.round(DECIMALS), quantiles=process.quantiles
            )
        return out


def _inverses(runs: Traits, processes: Mapping[str, Process], noises: Mapping[str, FloatArray]) -> FloatArray:
    """(metrics, n, n) the inverses of the covariances of the measured runs with their noise."""
    every = covariances(runs, runs, [process.deviations for process in processes.values()])
    return np.stack([np.linalg.inv(own + np.diag(noises[m] ** 2)) for m, own in zip(processes, every, strict=True)])


def _along_rows(a: FloatArray, b: FloatArray) -> FloatArray:
    """(n,) the scalar products of the rows of (n, m) and (n, m)."""
    products: FloatArray = np.einsum("ij,ij->i", a, b)
    return products


def _quadratic(rows: FloatArray, matrix: npt.NDArray[np.floating]) -> FloatArray:
    """(n,) row^T matrix row for `rows` (n, m) and a symmetric matrix (m, m), of which the lower half is left out: twice
    the upper one is the same for little more than half the work."""
    total = np.zeros(len(rows))
    for start in range(0, rows.shape[1], BLOCK):
        here = slice(start, start + BLOCK)
        above = 2 * (rows[:, :start] @ matrix[:start, here]) + rows[:, here] @ matrix[here, here]
        total += _along_rows(above, rows[:, here])
    return total


def _kinds(wanted: Traits) -> list[npt.NDArray[np.intp]]:
    """Where the runs of each kind are, which share with much the same measured runs."""
    kinds = np.array(["\n".join(kind) for kind in zip(*(wanted.names[name] for name in KINDS), strict=True)])
    order = np.argsort(kinds, kind="stable")
    return np.split(order, np.flatnonzero(kinds[order][1:] != kinds[order][:-1]) + 1) if order.size else []


@cache
def load_neighbours() -> Neighbours:
    """The shipped runs. What is inverted of them is kept (see kept.py), and read as far as it is needed."""
    data = resources.files("trilemma.catalogue").joinpath("data")
    residuals, fitted = (data.joinpath(name).read_bytes() for name in ("residuals.csv", "neighbours.toml"))
    rows = list(csv.DictReader(StringIO(residuals.decode())))
    terms = tomllib.loads(fitted.decode())

    def column(name: str) -> FloatArray:
        return np.array([float(r[name]) for r in rows])

    runs = Traits.of(rows)
    noises = {m: column(f"{m}_noise") for m in METRICS}
    processes = {
        m: Process(deviations=terms[m]["deviations"], noise=terms[m]["noise"], quantiles=tuple(terms[m]["quantiles"]))
        for m in METRICS
    }
    made_from = sha256(residuals + fitted + Path(__file__).read_bytes())
    return Neighbours(
        runs,
        log_ratios={m: column(f"{m}_log_ratio") for m in METRICS},
        noises=noises,
        processes=processes,
        inverses=kept_array(
            Path(__file__), "neighbours", made_from.hexdigest()[:16], lambda: _inverses(runs, processes, noises),
            shape=(len(METRICS), len(rows), len(rows)),
        ),
    )  # fmt: skip
