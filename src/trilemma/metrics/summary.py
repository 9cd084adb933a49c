"""Timings to numbers: exact percentiles, goodput, throughput, and verdicts on limits."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from trilemma.metrics.limits import LATENCIES, Limit, Metric, Miss, RequestBounds, bounds_by_class, value_key
from trilemma.metrics.timings import BoolArray, FloatArray, IntArray, Timings

REPORTED_QUANTILES = (0.5, 0.9, 0.95, 0.99)
BLOCK_BINS = 256  # of a histogram, added up together


def quantile(values: FloatArray, q: float) -> float | None:
    """Linear-interpolated quantile; NaN counts as infinite (a token that never came); None of nothing.

    >>> quantile(np.array([1.0, 2.0, 3.0]), 0.5)
    2.0
    >>> quantile(np.array([1.0, np.nan]), 0.99)
    inf
    """
    if not values.size:
        return None
    position = q * (values.size - 1)
    low = int(position)
    ordered = np.partition(values, low)  # NaN behind all others
    below = float(ordered[low])
    # The next in order is the least of what is behind: that is little, where the quantile is high.
    above = float(np.fmin.reduce(ordered[low + 1 :])) if low + 1 < values.size else below
    return _between(below, above, position - low)


def _between(below: float, above: float, share: float) -> float:
    """The value `share` of the way between two neighbours in order; NaN counts as infinite."""
    if share == 0 or above == below:
        return math.inf if math.isnan(below) else below
    return below + share * (above - below) if math.isfinite(above) else math.inf


def sorted_quantile(ordered: FloatArray, q: float) -> float | None:
    """`quantile` of values already in order, NaN at the end."""
    if not ordered.size:
        return None
    position = q * (ordered.size - 1)
    low = int(position)
    return _between(float(ordered[low]), float(ordered[min(low + 1, ordered.size - 1)]), position - low)


def histogram_quantile(edges_s: FloatArray, counts: IntArray, q: float) -> float | None:
    """Quantile of a histogram, at most one bin width off (linear inside the bin); None of nothing."""
    # Block by block first: a simulation has tens of thousands of bins, and a plan as many simulations.
    starts = np.arange(0, counts.size, BLOCK_BINS)
    through = np.cumsum(np.add.reduceat(counts, starts)) if counts.size else counts
    if not counts.size or not through[-1]:
        return None
    rank = q * int(through[-1])
    block = int(np.searchsorted(through, rank, side="left"))
    first = block * BLOCK_BINS
    cumulative = np.cumsum(counts[first : first + BLOCK_BINS]) + (through[block - 1] if block else 0)
    i = first + int(np.searchsorted(cumulative, rank, side="left"))
    inside = (rank - (cumulative[i - first] - counts[i])) / counts[i]
    return float(edges_s[i] + inside * (edges_s[i + 1] - edges_s[i]))


def in_limits(timings: Timings, bounds: RequestBounds) -> BoolArray:
    """(n,) whether each request finished and met every per-request bound; refused requests miss."""
    good = timings.finished.copy()
    if bounds.ttft_s is not None:
        good &= timings.ttft_s <= bounds.ttft_s
    if bounds.tpot_s is not None:
        tpot_s = timings.tpot_s
        good &= np.isnan(tpot_s) | (tpot_s <= bounds.tpot_s)
    if bounds.e2e_s is not None:
        good &= timings.e2e_s <= bounds.e2e_s
    if bounds.done_s is not None:
        good &= timings.done_s <= bounds.done_s
    return good


def in_own_limits(timings: Timings, limits: tuple[Limit, ...]) -> BoolArray:
    """(n,) whether each request finished and met every bound that `limits` set for a request of its class."""
    bounds = bounds_by_class(limits)
    good = in_limits(timings, bounds.pop(-1))
    for index, own in bounds.items():
        mine = of_class(timings, index)
        good[mine] = in_limits(timings, own)[mine]
    return good


def of_class(timings: Timings, index: int) -> BoolArray:
    """(n,) whether each request is of a class. ValueError for timings that know no classes."""
    if timings.request_class is None:
        raise ValueError("limits of classes need requests that have one")
    mine: BoolArray = timings.request_class == index
    return mine


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Statistics of one run. `values` holds seconds by key ("ttft_p99_s"), None where there is nothing to measure.

    `span_s` runs from the first arrival to the last token; rates are over it. `goodput_share` is None without limits.
    `classes` holds the same of each class's requests by name; gaps between tokens (ITL), which are not kept per
    request, are None there.
    """

    requests: int
    finished: int
    span_s: float
    values: Mapping[str, float | None]
    requests_per_s: float
    output_tokens_per_s: float
    preemptions: int
    goodput_share: float | None
    classes: Mapping[str, "Summary"] = field(default_factory=dict)

    def value(self, limit: Limit) -> float | None:
        """The number `limit` bounds."""
        return self.at(limit.key)

    def at(self, key: str) -> float | None:
        """The number of a Limit.key; None where there is none."""
        name, _, of = key.partition("[")
        own = self.classes.get(of[:-1]) if of else self
        return None if own is None else own.values.get(name)

    def bounded(self, limits: tuple[Limit, ...]) -> dict[str, float | None]:
        """The numbers that `limits` bound, by Limit.key."""
        return {limit.key: self.value(limit) for limit in limits}


def _latencies(timings: Timings, metric: Metric) -> FloatArray:
    if metric is Metric.TTFT:
        return timings.ttft_s
    if metric is Metric.E2E:
        return timings.e2e_s
    defined = timings.output_tokens > 1
    return timings.tpot_s[defined]


def _statistic(timings: Timings, metric: Metric, q: float | None) -> float | None:
    if metric is Metric.ITL:
        edges, counts = timings.itl_edges_s, timings.itl_counts
        if edges is None or counts is None:
            return None
        if q is None:
            total = counts.sum()
            return float((counts * (edges[:-1] + edges[1:]) / 2).sum() / total) if total else None
        return histogram_quantile(edges, counts, q)
    values = _latencies(timings, metric)
    return _mean(values) if q is None else quantile(values, q)


def _mean(values: FloatArray) -> float | None:
    """The mean; infinite where a value is NaN (a token that never came), None of nothing."""
    if not values.size:
        return None
    mean = float(values.mean())
    return math.inf if math.isnan(mean) else mean


def verdict(timings: Timings, limits: tuple[Limit, ...]) -> dict[str, float | None]:
    """Only the numbers that `limits` bound, by key: what a search asks of each of its many simulations."""
    values: dict[str, float | None] = {}
    parts = {limit.of.index: _part(timings, limit.of.index) for limit in limits if limit.of is not None}
    for limit in limits:
        run = timings if limit.of is None else parts[limit.of.index]
        if limit.metric is Metric.GOODPUT:
            values[limit.key] = float(in_own_limits(run, limits).mean()) if len(run) else None
        elif limit.metric is Metric.DEADLINE:
            values[limit.key] = makespan_s(run)
        else:
            values[limit.key] = _statistic(run, limit.metric, limit.quantile)
    return values


def _part(timings: Timings, index: int) -> Timings:
    """The requests of one class; their gaps between tokens are not known apart."""
    return replace(select(timings, of_class(timings, index)), itl_edges_s=None, itl_counts=None)


def makespan_s(timings: Timings) -> float | None:
    """First arrival to last token; infinite where a request never finished, None of nothing."""
    if not len(timings):
        return None
    return float(timings.done_s.max() - timings.arrival_s.min()) if timings.finished.all() else float("inf")


def summarise(
    timings: Timings,
    limits: tuple[Limit, ...] = (),
    *,
    keep: npt.NDArray[np.bool_] | None = None,
    classes: Sequence[str] = (),
    good: BoolArray | None = None,
) -> Summary:
    """Percentiles p50, p90, p95, p99 and means of every latency, whatever `limits` ask beyond, goodput and rates.

    `keep` (n,) leaves requests out of the statistics (warm-up), not out of the run. `classes` are the names of the
    workload's classes, of each of which there is the same; those that `limits` name need not be given. `good` (n,) says
    which requests kept `limits` by themselves, where that is known and `keep` leaves none out.
    """
    run = timings if keep is None else select(timings, keep)
    latencies = {m: _latencies(run, m) for m in LATENCIES if m is not Metric.ITL}
    ordered = {m: np.sort(values) for m, values in latencies.items()}
    values: dict[str, float | None] = {}
    for name, m, q in _statistics(frozenset((limit.metric, limit.quantile) for limit in limits)):
        if m not in ordered:
            values[name] = _statistic(run, m, q)
        else:
            values[name] = _mean(latencies[m]) if q is None else sorted_quantile(ordered[m], q)
    done = run.done_s[run.finished]
    first_arrival_s = float(run.arrival_s.min()) if len(run) else 0.0
    span_s = float(done.max() - first_arrival_s) if done.size else 0.0
    values["makespan_s"] = makespan_s(run)
    if good is None and limits:
        good = in_own_limits(run, limits)
    share = float(good.mean()) if good is not None and good.size else None
    values["goodput_share"] = share
    return Summary(
        requests=len(run),
        finished=int(run.finished.sum()),
        span_s=span_s,
        values=values,
        requests_per_s=done.size / span_s if span_s > 0 else 0.0,
        output_tokens_per_s=float(run.output_tokens[run.finished].sum()) / span_s if span_s > 0 else 0.0,
        preemptions=int(run.preemptions.sum()),
        goodput_share=share,
        classes=_by_class(run, limits, classes),
    )


@lru_cache(maxsize=64)
def _statistics(asked: frozenset[tuple[Metric, float | None]]) -> tuple[tuple[str, Metric, float | None], ...]:
    """(key, metric, quantile) of what a summary holds, in order: of every latency, and what is asked of them beyond."""
    wanted = {(metric, q) for metric in LATENCIES for q in (None, *REPORTED_QUANTILES)}
    wanted |= {(metric, q) for metric, q in asked if metric in LATENCIES}
    return tuple((value_key(metric, q), metric, q) for metric, q in sorted(wanted, key=str))


def _by_class(run: Timings, limits: tuple[Limit, ...], classes: Sequence[str]) -> dict[str, Summary]:
    """The summary of each class's requests, by name."""
    places = {name: index for index, name in enumerate(classes)}
    places |= {limit.of.name: limit.of.index for limit in limits if limit.of is not None}
    found = {}
    for name, index in places.items():
        own = tuple(replace(limit, of=None) for limit in limits if limit.of is not None and limit.of.index == index)
        summary = summarise(_part(run, index), own)
        good = in_own_limits(_part(run, index), limits) if limits else None
        share = float(good.mean()) if good is not None and good.size else None
        found[name] = replace(summary, values={**summary.values, "goodput_share": share}, goodput_share=share)
    return found


def select(timings: Timings, keep: npt.NDArray[np.bool_]) -> Timings:
    """The requests of `keep` (n,); the ITL histogram, which has no owner per gap, stays whole."""
    return Timings(
        arrival_s=timings.arrival_s[keep],
        first_token_s=timings.first_token_s[keep],
        done_s=timings.done_s[keep],
        prompt_tokens=timings.prompt_tokens[keep],
        output_tokens=timings.output_tokens[keep],
        preemptions=timings.preemptions[keep],
        recomputed_tokens=timings.recomputed_tokens[keep],
        itl_edges_s=timings.itl_edges_s,
        itl_counts=timings.itl_counts,
        request_class=None if timings.request_class is None else timings.request_class[keep],
    )


def judge(
    values: Mapping[str, float | None], limits: tuple[Limit, ...], *, margins: Mapping[Metric, float] | None = None
) -> tuple[Miss, ...]:
    """Every limit that `values` (by Limit.key) do not keep, in the order asked; empty means feasible.

    `margins` multiply what is compared with a bound (1 where absent): a prediction is judged by what it may well be.
    """
    misses = []
    for limit in limits:
        got = values.get(limit.key)
        if got is not None and margins is not None:
            got *= margins.get(limit.metric, 1.0)
        if not limit.holds(got):
            misses.append(Miss(limit=limit, got=got, excess=limit.excess(got)))
    return tuple(misses)
