"""The fleet of a job that is all there at the start: whole paid units, done before the deadline."""

from collections.abc import Callable

import numpy as np

from trilemma.metrics.activity import Capacity
from trilemma.metrics.limits import Metric, Miss
from trilemma.metrics.summary import makespan_s
from trilemma.planner.answer import Rejection, Trial
from trilemma.planner.bench import Bench
from trilemma.planner.candidate import Candidate
from trilemma.planner.question import Question
from trilemma.planner.schedules import batch_schedules
from trilemma.planner.streams import KNEE_PRECISION
from trilemma.planner.trial import missed, too_many, trial_of
from trilemma.sim.replica import Run

GROWTHS = 6  # times a sized fleet may grow before it is given up
DOUBLINGS = 10  # the same for a job's fleet, which doubles


def size_batch(bench: Bench, saturated: float) -> Trial | Rejection:
    """A fleet that finishes a job, all there at the start, before its deadline with the headroom to spare: the fewest
    replicas, the spare ones on top, and as many more as the paid units hold anyway."""
    question, spare = bench.question, bench.question.sizing.spare_replicas
    requests, n = question.workload.requests, len(question.workload.requests)
    runs: dict[int, Run] = {}

    def misses_on(replicas: int) -> tuple[Miss, ...]:
        runs[replicas] = bench.play(requests, replicas)
        others = (m for m in bench.misses(runs[replicas]) if m.limit.metric is not Metric.DEADLINE)
        return (*_late(bench, makespan_s(runs[replicas].timings)), *others)

    fewest = _fewest_in_time(bench, saturated, misses_on)
    if isinstance(fewest, Rejection):
        return fewest
    first = filled(fewest + spare, bench.candidate, question)
    for replicas in range(first, first + GROWTHS):
        if rejection := too_many(bench, replicas):
            return rejection
        misses = misses_on(replicas)
        if not misses:  # nearly always at once, but more replicas can deal the longest requests out worse
            break
    else:
        return missed(bench, misses, f"with its headroom, on {replicas} replicas")
    took_s = last_answer_s(runs[replicas])
    return trial_of(
        bench,
        runs[replicas],
        runs[replicas],
        replicas=replicas,
        offered_rps=n / took_s,
        capacity=Capacity(saturation_rps=max(saturated, n / took_s / replicas), knee_rps=None),
        schedules=batch_schedules(question, replicas, took_s),
    )


def _fewest_in_time(bench: Bench, saturated: float, misses_on: Callable[[int], tuple[Miss, ...]]) -> int | Rejection:
    """The fewest replicas on which a job keeps its limits, spare ones left out: doubled until enough, then bisected."""
    n, spare = len(bench.question.workload.requests), bench.question.sizing.spare_replicas
    most_gpus = bench.question.space.max_gpus
    allowed = n if most_gpus is None else most_gpus // bench.candidate.deployment.gpus - spare
    if misses := _late(bench, _longest_alone_s(bench)):
        return missed(bench, misses, "with its headroom, even if every request had a replica for itself")
    low, high = 0, min(n, max(1, int(np.ceil(n / (saturated * _wanted_makespan_s(bench))))))
    for _ in range(DOUBLINGS):
        if rejection := too_many(bench, high + spare):
            return rejection
        tried, misses = high, misses_on(high)
        if not misses or high >= n:  # with a replica for every request no more can help
            break
        grown = min(n, 2 * high)
        low, high = high, min(grown, allowed) if high < allowed else grown
    if misses:
        return missed(bench, misses, f"with its headroom, even on {tried} replicas")
    while low and high - low > max(1, round(KNEE_PRECISION * high)):
        middle = (low + high) // 2
        low, high = (middle, high) if misses_on(middle) else (low, middle)
    return high


def _longest_alone_s(bench: Bench) -> float | None:
    """How long the longest prompt and the longest output take with a replica each: no job ends sooner."""
    requests = bench.question.workload.requests
    longest = {int(requests.prompt_tokens.argmax()), int(requests.output_tokens.argmax())}
    alone = requests.take(np.array(sorted(longest)))
    return makespan_s(bench.play(alone, len(alone)).timings)


def filled(replicas: int, candidate: Candidate, question: Question) -> int:
    """At least `replicas` of a batch job: as many as fit the whole units that they need in any case, since on rented
    nodes the job then ends, and the rent with it, so much sooner; never more than requests or max_gpus allow."""
    size, n = candidate.deployment.gpus, len(question.workload.requests)
    units = [offer.purchase_unit_gpus for offer in question.space.offers_for(candidate.deployment.accelerator)]
    together = max(1, min(units, default=1) // size)
    most = n if question.space.max_gpus is None else min(n, question.space.max_gpus // size)
    return max(replicas, min(-(-replicas // together) * together, most))


def last_answer_s(run: Run) -> float:
    """When a job's last answer is there; those of refused requests never are."""
    return float(np.nanmax(run.timings.done_s))


def _margin_of_deadline(bench: Bench) -> float:
    """By what a job's predicted time is multiplied before it meets its deadline: headroom or doubt, whichever is
    more; a slow night and a wrong prediction are not insured against twice."""
    return max(1 + bench.question.sizing.headroom, bench.margins[Metric.DEADLINE])


def _wanted_makespan_s(bench: Bench) -> float:
    """How long a job may be predicted to take; infinite without a deadline."""
    deadline_s = bench.question.deadline_s
    return deadline_s / _margin_of_deadline(bench) if deadline_s is not None else float("inf")


def _late(bench: Bench, took_s: float | None) -> tuple[Miss, ...]:
    """The deadline that a job of `took_s` misses, if it does."""
    got = float("inf") if took_s is None else took_s * _margin_of_deadline(bench)
    limits = (x for x in bench.question.limits if x.metric is Metric.DEADLINE)
    return tuple(Miss(limit=x, got=got, excess=x.excess(got)) for x in limits if not x.holds(got * (1 - 1e-9)))
