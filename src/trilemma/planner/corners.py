"""The corners of the trilemma: the cheapest, the fastest and the hardest-working deployment, and what each gives up."""

from collections.abc import Callable
from math import inf

from trilemma.planner.answer import Plan
from trilemma.planner.explanation import Corner

Measure = Callable[[Plan], float]
DIGITS = 3  # nobody prefers by a fourth digit


def cost_of(plan: Plan) -> float:
    """$/h."""
    return plan.usd_per_h


def ttft_of(plan: Plan) -> float:
    """p99 TTFT in seconds; infinite where there is none."""
    return _value(plan, "ttft_p99_s")


def itl_of(plan: Plan) -> float:
    """p99 ITL in seconds; infinite where there is none."""
    return _value(plan, "itl_p99_s")


def slowness_of(plan: Plan) -> float:
    """GPU-seconds for an output token: small where the throughput per GPU is large."""
    rate = plan.trial.output_tokens_per_s_per_gpu
    return 1 / rate if rate > 0 else inf


def makespan_of(plan: Plan) -> float:
    """Seconds that a job takes."""
    return _value(plan, "makespan_s")


MEASURES: dict[str, Measure] = {
    "cost": cost_of, "ttft": ttft_of, "itl": itl_of, "makespan": makespan_of, "throughput": slowness_of,
}  # fmt: skip
NAMES = {
    "cost": "cheapest", "ttft": "first token soonest", "itl": "tokens fastest", "makespan": "job done soonest",
    "throughput": "most per GPU",
}  # fmt: skip
ORDER = ("cost", "ttft", "throughput", "itl")  # among equals in what a corner is about
OF_JOBS, OF_REQUESTS = ("cost", "makespan", "throughput"), ("cost", "ttft", "itl", "throughput")


def corners(plans: tuple[Plan, ...], *, is_job: bool = False) -> tuple[Corner, ...]:
    """One for each of cost, p99 TTFT, p99 ITL and tokens/s/GPU, of a job for cost, its time and tokens/s/GPU; none
    without plans.

    Among plans that are alike in the first three digits of what a corner is about, the one is named that no other beats
    in the rest: cheaper first, then the shorter TTFT, more per GPU, the shorter ITL.
    """
    if not plans:
        return ()
    keys = OF_JOBS if is_job else OF_REQUESTS
    values = {key: [MEASURES[key](p) for p in plans] for key in dict.fromkeys((*keys, *ORDER))}
    best = {key: min(values[key]) for key in keys}
    found = []
    for key in keys:
        if best[key] == inf:
            continue
        near = [i for i, value in enumerate(values[key]) if _rounded(value) == _rounded(best[key])]
        at = 0 if key == "cost" else min(near, key=lambda i: [_rounded(values[k][i]) for k in ORDER])
        over = {name: _ratio(values[name][at], best[name]) for name in keys}
        found.append(Corner(name=NAMES[key], plan=plans[at], gives_up=over))
    return tuple(found)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _ratio(value: float, best: float) -> float | None:
    return value / best if 0 < best < inf and value < inf else None


def _value(plan: Plan, key: str) -> float:
    found = plan.trial.summary.values.get(key)
    return inf if found is None else found
