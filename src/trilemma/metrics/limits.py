"""Latency limits: "ttft p99 <= 1 s" as a value that timings are judged by, with the size of every miss."""

import math
import re
from dataclasses import dataclass
from enum import StrEnum

from trilemma.errors import InputError
from trilemma.units import parse_share, parse_time_s, show_time


class Metric(StrEnum):
    """What a limit bounds. GOODPUT is a share of requests, DEADLINE the time the last request finishes."""

    TTFT = "ttft"
    ITL = "itl"
    TPOT = "tpot"
    E2E = "e2e"
    GOODPUT = "goodput"
    DEADLINE = "deadline"


LATENCIES = (Metric.TTFT, Metric.ITL, Metric.TPOT, Metric.E2E)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A bound on one statistic: at most `bound` seconds, or for GOODPUT at least a share of `bound`.

    `quantile` is in (0, 1) for a percentile, None for the mean (and for GOODPUT and DEADLINE, which have no
    statistic). `text` is the normalised spelling.
    """

    metric: Metric
    quantile: float | None
    bound: float
    text: str

    @property
    def key(self) -> str:
        """Name of the bounded number, such as "ttft_p99_s"."""
        return value_key(self.metric, self.quantile)

    def holds(self, value: float | None) -> bool:
        """Whether `value` keeps the limit; an unmeasured value does not."""
        if value is None or value != value:  # noqa: PLR0124 - NaN is the one value unequal to itself
            return False
        return value >= self.bound if self.metric is Metric.GOODPUT else value <= self.bound

    def excess(self, value: float | None) -> float:
        """How far `value` misses, as a ratio of the bound: 0 when it holds, 0.3 for 30% beyond, inf if unmeasured."""
        if self.holds(value):
            return 0.0
        if value is None or value != value:  # noqa: PLR0124
            return float("inf")
        return self.bound - value if self.metric is Metric.GOODPUT else value / self.bound - 1

    def show(self, value: float | None) -> str:
        """A value of this limit's kind for people."""
        if self.metric is Metric.GOODPUT:
            return "-" if value is None else f"{100 * value:.1f}%"
        return show_time(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """One limit not kept: what was wanted, what came, and the excess as a ratio of the bound."""

    limit: Limit
    got: float | None
    excess: float

    @property
    def text(self) -> str:
        """A sentence for people.

        >>> limit = parse_limit("ttft p99 <= 1 s", where="limits[0]")
        >>> Miss(limit=limit, got=1.3, excess=limit.excess(1.3)).text
        'ttft p99 <= 1 s missed: 1.3 s (30% over)'
        """
        if self.got is None:
            return f"{self.limit.text} missed: unmeasured"
        size = "under" if self.limit.metric is Metric.GOODPUT else "over"
        return f"{self.limit.text} missed: {self.limit.show(self.got)} ({100 * self.excess:.0f}% {size})"


def value_key(metric: Metric, quantile: float | None) -> str:
    """The name a statistic has in summaries and JSON.

    >>> value_key(Metric.TTFT, 0.999), value_key(Metric.ITL, None), value_key(Metric.GOODPUT, None)
    ('ttft_p99.9_s', 'itl_mean_s', 'goodput_share')
    """
    if metric is Metric.GOODPUT:
        return "goodput_share"
    if metric is Metric.DEADLINE:
        return "makespan_s"
    return f"{metric.value}_mean_s" if quantile is None else f"{metric.value}_p{100 * quantile:.10g}_s"


_GRAMMAR = re.compile(r"^\s*(\w+)(?:\s+([\w.]+))?\s*(<=|>=|<(?!=)|>(?!=))\s*(.+?)\s*$")
_PERCENTILE = re.compile(r"p([0-9]{1,2}(?:\.[0-9]+)?)")  # plain digits: float() alone would read "p9_9" and "p1e1"
_FORM = "'METRIC STAT <= TIME' such as 'ttft p99 <= 1 s', 'goodput >= 95%' or 'deadline <= 6 h'"


def parse_limit(text: object, *, where: str) -> Limit:
    """A limit from its text; raises InputError naming `where` for anything it cannot mean.

    >>> parse_limit("itl p95 <= 40 ms", where="limits[0]").key
    'itl_p95_s'
    """
    match = _GRAMMAR.match(text) if isinstance(text, str) else None
    if match is None:
        raise InputError(where, expected=_FORM, found=repr(text))
    name, statistic, operator, bound_text = match.groups()
    try:
        metric = Metric(name.lower())
    except ValueError:
        raise InputError(where, expected=f"one of {', '.join(Metric)}", found=repr(name)) from None
    if metric is Metric.GOODPUT:
        if statistic is not None or operator not in {">=", ">"}:
            raise InputError(where, expected="'goodput >= SHARE' such as 'goodput >= 95%'", found=repr(text))
        share = parse_share(bound_text, where=where)
        if not 0 < share <= 1:
            raise InputError(where, expected="a share in (0%, 100%]", found=repr(bound_text))
        return Limit(metric=metric, quantile=None, bound=share, text=f"goodput >= {100 * share:.10g}%")
    if operator not in {"<=", "<"}:
        raise InputError(where, expected=f"'<=' for {metric.value}", found=repr(operator))
    bound_s = parse_time_s(bound_text, where=where)
    if bound_s <= 0:
        raise InputError(where, expected="a bound above zero", found=repr(bound_text))
    if metric is Metric.DEADLINE:
        if statistic is not None:
            raise InputError(where, expected="'deadline <= TIME' without a statistic", found=repr(text))
        return Limit(metric=metric, quantile=None, bound=bound_s, text=f"deadline <= {_bound_text(bound_s)}")
    quantile = _quantile(statistic, where=where)
    shown = "mean" if quantile is None else f"p{100 * quantile:.10g}"
    return Limit(
        metric=metric, quantile=quantile, bound=bound_s, text=f"{metric.value} {shown} <= {_bound_text(bound_s)}"
    )


def _quantile(statistic: str | None, *, where: str) -> float | None:
    """0.99 from "p99"; None from "mean"."""
    expected = "a statistic: 'mean' or a percentile above p0 and below p100 such as 'p99' or 'p99.9'"
    if statistic is None:
        raise InputError(where, expected=expected, found="none", hint="write for example 'ttft p99 <= 1 s'")
    if statistic.lower() == "mean":
        return None
    match = _PERCENTILE.fullmatch(statistic.lower())
    percent = float(match[1]) if match else 0.0
    if not 0 < percent < 100:
        raise InputError(where, expected=expected, found=repr(statistic))
    return percent / 100


def _bound_text(bound_s: float) -> str:
    """A bound as people write it, every digit kept: the text must say the bound that is judged by.

    >>> _bound_text(0.5), _bound_text(21600), _bound_text(0.033333)
    ('500 ms', '6 h', '33.333 ms')
    """
    shown = show_time(bound_s)
    if "e" not in shown and math.isclose(parse_time_s(shown, where=""), bound_s, rel_tol=1e-9):
        return shown
    unit, scale = next(((u, x) for u, x in (("s", 1.0), ("ms", 1e-3)) if bound_s >= x), ("us", 1e-6))
    return f"{bound_s / scale:.10g} {unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestBounds:
    """Bounds each request is judged by for goodput, seconds; TPOT stands in for an ITL bound. None: unbounded."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None
    done_s: float | None = None


def request_bounds(limits: tuple[Limit, ...]) -> RequestBounds:
    """The tightest per-request bounds that `limits` imply.

    >>> request_bounds((parse_limit("itl p99 <= 60 ms", where=""), parse_limit("tpot mean <= 50 ms", where=""))).tpot_s
    0.05
    """

    def tightest(*metrics: Metric) -> float | None:
        return min((limit.bound for limit in limits if limit.metric in metrics), default=None)

    return RequestBounds(
        ttft_s=tightest(Metric.TTFT),
        tpot_s=tightest(Metric.TPOT, Metric.ITL),
        e2e_s=tightest(Metric.E2E),
        done_s=tightest(Metric.DEADLINE),
    )
