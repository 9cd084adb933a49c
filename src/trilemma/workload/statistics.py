"""What a workload looks like: rates, burstiness, lengths, prefix reuse and its kind."""

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from trilemma.errors import InputError
from trilemma.units import show_time
from trilemma.workload.arrivals import ClosedLoop
from trilemma.workload.kind import Kind, classify
from trilemma.workload.prefix import PrefixReuse, prefix_reuse
from trilemma.workload.requests import FloatArray, IntArray, Requests

WINDOWS_S: Final = (1.0, 10.0, 60.0, 300.0)
_FEWEST_WINDOWS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRate:
    """Arrivals seen through windows of `window_s` seconds.

    peak_rate_per_s: the most arrivals in any such window, wherever it starts, over its length; None where the table
    is shorter than the window. dispersion: variance over mean of the counts in consecutive windows, 1 for Poisson,
    more where load comes in waves; None below ten windows.
    """

    window_s: float
    peak_rate_per_s: float | None
    dispersion: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthSummary:
    """Token counts of prompts (ISL) or outputs (OSL); percentiles interpolate linearly."""

    total: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadStatistics:
    """A workload in numbers; None where a value does not exist, such as a rate where everything arrives at once.

    duration_s runs from 0 to the last arrival; rates are per second of it. interarrival_cv is the standard deviation
    of the gaps over their mean (1 for Poisson). prompt_output_ratio is prompt over output tokens in total.
    """

    requests: int
    duration_s: float
    mean_rate_per_s: float | None
    windows: tuple[WindowRate, ...]
    interarrival_cv: float | None
    prompt: LengthSummary
    output: LengthSummary
    prompt_output_ratio: float
    input_tokens_per_s: float | None
    output_tokens_per_s: float | None
    sessions: int | None
    prefix: PrefixReuse | None
    concurrency: int | None
    kind: Kind

    def concurrency_at(self, mean_latency_s: float) -> float | None:
        """Requests in the system on average if each stays `mean_latency_s` (Little's law); None without a rate."""
        if self.concurrency is not None:
            return float(self.concurrency)
        return None if self.mean_rate_per_s is None else little_concurrency(self.mean_rate_per_s, mean_latency_s)

    def as_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers, ready for JSON."""
        plain = asdict(self)
        plain["windows"] = [dict(row) for row in plain["windows"]]
        plain["kind"] = self.kind._asdict()
        return plain

    def rows(self) -> tuple[tuple[str, str], ...]:
        """(what, value) in the order a person reads them; "-" where a value does not exist."""
        rows = [
            ("requests", f"{self.requests:,}"),
            ("duration", show_time(self.duration_s)),
            ("mean rate", _show(self.mean_rate_per_s, "req/s")),
        ]
        if self.concurrency is not None:
            rows.append(("closed-loop clients", f"{self.concurrency:,}"))
        rows += [
            (f"peak rate in {show_time(row.window_s)}", _show(row.peak_rate_per_s, "req/s")) for row in self.windows
        ]
        rows.append(("burstiness, CV of gaps", _show(self.interarrival_cv)))
        rows += [(f"dispersion over {show_time(row.window_s)}", _show(row.dispersion)) for row in self.windows]
        for what, lengths in (("ISL", self.prompt), ("OSL", self.output)):
            shown = f"{lengths.mean:,.0f} / {lengths.p50:,.0f} / {lengths.p90:,.0f} / {lengths.p95:,.0f}"
            rows.append(
                (f"{what} mean / p50 / p90 / p95 / p99 / max", f"{shown} / {lengths.p99:,.0f} / {lengths.max:,}")
            )
        rows += [
            ("prompt : output tokens", f"{self.prompt_output_ratio:.3g} : 1"),
            ("tokens in", _show(self.input_tokens_per_s, "tok/s")),
            ("tokens out", _show(self.output_tokens_per_s, "tok/s")),
        ]
        if self.sessions is not None:
            rows.append(("sessions", f"{self.sessions:,}"))
        if self.prefix is not None:
            rows += [
                ("prefix reuse, share of prompt tokens", f"{self.prefix.hit_token_share:.1%}"),
                ("prefix reuse, share of requests", f"{self.prefix.requests_with_hit_share:.1%}"),
                ("distinct blocks", f"{self.prefix.distinct_blocks:,} of {self.prefix.block_tokens} tokens"),
            ]
        rows.append(("kind", f"{self.kind.name}: {self.kind.reason}"))
        return tuple(rows)


def statistics(
    requests: Requests,
    *,
    closed_loop: ClosedLoop | None = None,
    has_latency_limits: bool = False,
    has_deadline: bool = False,
) -> WorkloadStatistics:
    """Count, rates, burstiness, lengths, prefix reuse and kind of at least one request.

    The hints about the limits decide the kind where given, see `kind.classify`. Raises InputError for an empty table.
    """
    if not len(requests):
        raise InputError("workload", expected="at least one request", found="none")
    duration_s = requests.duration_s
    prompt, output = _lengths(requests.prompt_tokens), _lengths(requests.output_tokens)
    timed = duration_s > 0 and closed_loop is None
    return WorkloadStatistics(
        requests=len(requests),
        duration_s=duration_s,
        mean_rate_per_s=requests.rate_per_s if timed else None,
        windows=tuple(_window_rate(requests.arrival_s, window_s) for window_s in WINDOWS_S),
        interarrival_cv=interarrival_cv(requests.arrival_s),
        prompt=prompt,
        output=output,
        prompt_output_ratio=prompt.total / output.total,
        input_tokens_per_s=prompt.total / duration_s if timed else None,
        output_tokens_per_s=output.total / duration_s if timed else None,
        sessions=None if requests.session is None else int(np.unique(requests.session).size),
        prefix=prefix_reuse(requests),
        concurrency=None if closed_loop is None else closed_loop.concurrency,
        kind=classify(
            requests, closed_loop=closed_loop, has_latency_limits=has_latency_limits, has_deadline=has_deadline
        ),
    )


def little_concurrency(rate_per_s: float, mean_latency_s: float) -> float:
    """Little's law: mean number in the system = rate x mean time in it.

    >>> little_concurrency(5.0, 2.0)
    10.0
    """
    return rate_per_s * mean_latency_s


def peak_count(arrival_s: FloatArray, window_s: float) -> int:
    """(n,) ordered -> the most arrivals in any half-open window of `window_s` seconds; 0 without arrivals.

    >>> peak_count(np.array([0.0, 0.9, 1.0, 5.0]), 1.0)
    2
    """
    if not arrival_s.size:
        return 0
    # The fullest window can be moved right until it starts at an arrival.
    upto = np.searchsorted(arrival_s, arrival_s + window_s, side="left")
    return int((upto - np.arange(arrival_s.size)).max())


def interarrival_cv(arrival_s: FloatArray) -> float | None:
    """(n,) ordered -> standard deviation of the gaps over their mean; None below two gaps or where all are 0."""
    gaps = np.diff(arrival_s)
    if gaps.size < 2 or not gaps.any():
        return None
    return float(gaps.std(ddof=1) / gaps.mean())


def index_of_dispersion(arrival_s: FloatArray, window_s: float) -> float | None:
    """(n,) ordered -> variance over mean of the counts in consecutive windows from 0; None below ten whole ones."""
    whole = int(arrival_s[-1] // window_s) if arrival_s.size else 0
    if whole < _FEWEST_WINDOWS:
        return None
    edges = np.searchsorted(arrival_s, np.arange(whole + 1) * window_s, side="left")
    counts = np.diff(edges)
    return float(counts.var(ddof=1) / counts.mean()) if counts.any() else None


def _window_rate(arrival_s: FloatArray, window_s: float) -> WindowRate:
    seen = arrival_s[-1] >= window_s
    return WindowRate(
        window_s=window_s,
        peak_rate_per_s=peak_count(arrival_s, window_s) / window_s if seen else None,
        dispersion=index_of_dispersion(arrival_s, window_s),
    )


def _lengths(tokens: IntArray) -> LengthSummary:
    p50, p90, p95, p99 = (float(value) for value in np.percentile(tokens, [50, 90, 95, 99]))
    return LengthSummary(
        total=int(tokens.sum()), mean=float(tokens.mean()), p50=p50, p90=p90, p95=p95, p99=p99, max=int(tokens.max())
    )


def _show(value: float | None, unit: str = "") -> str:
    if value is None:
        return "-"
    return f"{value:,.0f} {unit}".rstrip() if value >= 1000 else f"{value:.4g} {unit}".rstrip()
