"""Errors of predictions against measured runs, and the decisions that follow from them.

For every (model, system, precision, isl, osl) with at least two configurations and every TPOT bound, the configuration
and load of highest predicted tokens/s/GPU is chosen whose predicted (safe) TPOT is inside the bound. A choice whose
measured TPOT exceeds the bound by more than 5% is a violation and counts as 100% regret; else regret is the measured
tokens/s/GPU lost against the best measured choice.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

BOUNDS_MS = (8, 12, 20, 30, 50, 100)
TOLERANCE = 1.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One measured run beside its prediction, milliseconds; `safe_ms` is the TPOT a choice compares with a bound."""

    problem: tuple[str, ...]
    configuration: tuple[str, ...]
    out: float
    concurrency: int
    gpus: int
    tpot_ms: float
    ttft_ms: float
    predicted_tpot_ms: float
    predicted_ttft_ms: float
    tpot_low_ms: float
    tpot_high_ms: float
    ttft_low_ms: float
    ttft_high_ms: float
    safe_ms: float

    def tok_s_per_gpu(self, ttft_ms: float, tpot_ms: float) -> float:
        """Output tokens per second and GPU of `concurrency` clients with such latencies."""
        return self.concurrency * self.out / ((ttft_ms + tpot_ms * (self.out - 1)) / 1e3) / self.gpus

    @property
    def throughput(self) -> float:
        """Measured tokens/s/GPU."""
        return self.tok_s_per_gpu(self.ttft_ms, self.tpot_ms)

    @property
    def predicted_throughput(self) -> float:
        """Predicted tokens/s/GPU."""
        return self.tok_s_per_gpu(self.predicted_ttft_ms, self.predicted_tpot_ms)


def errors(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Of (measured, predicted) pairs: mean and median absolute and median signed error, percent."""
    signed = [100 * (p - m) / m for m, p in pairs]
    absolute = [abs(e) for e in signed]
    return {
        "mape": statistics.fmean(absolute),
        "median": statistics.median(absolute),
        "bias": statistics.median(signed),
    }


def decisions(rows: Sequence[Scored]) -> dict[str, float]:
    """Penalised regret and violations, percent, over all problems and bounds."""
    problems: dict[tuple[str, ...], list[Scored]] = {}
    for r in rows:
        problems.setdefault(r.problem, []).append(r)
    regret: list[float] = []
    violated = 0
    for group in problems.values():
        if len({r.configuration for r in group}) < 2:
            continue
        for bound in BOUNDS_MS:
            feasible = [r for r in group if r.tpot_ms <= bound]
            if not feasible:
                continue
            chosen = max((r for r in group if r.safe_ms <= bound), key=lambda r: r.predicted_throughput, default=None)
            if chosen is None:
                regret.append(1.0)
            elif chosen.tpot_ms > TOLERANCE * bound:
                violated += 1
                regret.append(1.0)
            else:
                regret.append(max(0.0, 1 - chosen.throughput / max(r.throughput for r in feasible)))
    count = len(regret)
    if not count:
        return {"problems": 0, "penalised_regret": 0.0, "violations": 0.0}
    return {
        "problems": count,
        "penalised_regret": 100 * statistics.fmean(regret),
        "violations": 100 * violated / count,
    }


def score(rows: Sequence[Scored]) -> dict[str, object]:
    """Everything of a set of runs."""
    inside = {
        "tpot": [r.tpot_low_ms <= r.tpot_ms <= r.tpot_high_ms for r in rows],
        "ttft": [r.ttft_low_ms <= r.ttft_ms <= r.ttft_high_ms for r in rows],
    }
    width = {
        "tpot": [r.tpot_high_ms / r.tpot_low_ms for r in rows],
        "ttft": [r.ttft_high_ms / r.ttft_low_ms for r in rows],
    }
    return {
        "rows": len(rows),
        "tpot": errors([(r.tpot_ms, r.predicted_tpot_ms) for r in rows]),
        "ttft": errors([(r.ttft_ms, r.predicted_ttft_ms) for r in rows]),
        "tok_s_per_gpu": errors([(r.throughput, r.predicted_throughput) for r in rows]),
        "interval": {
            m: {"inside": 100 * statistics.fmean(inside[m]), "width": statistics.median(width[m])} for m in inside
        },
        "decision": decisions(rows),
    }
