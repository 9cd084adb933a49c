"""When a sized fleet runs: the hours of a day, or a job and the pause after it."""

from functools import partial

import numpy as np

from trilemma.cost.sizing import sized_schedule
from trilemma.metrics.activity import Schedule
from trilemma.planner.question import Question
from trilemma.units import SECONDS_PER_H
from trilemma.workload.requests import FloatArray


def stream_schedules(question: Question, replica_capacity_rps: float) -> tuple[Schedule, Schedule]:
    """(held all day at the peak, following the load) for requests that arrive by themselves."""
    workload, sizing = question.workload, question.sizing
    hours = workload.hourly_rps
    shaped = (
        "no workload.profile: the trace repeats" if workload.profile is None else "the day follows workload.profile"
    )
    build = partial(
        sized_schedule,
        seconds=np.full(hours.size, SECONDS_PER_H),
        load_rps=hours,
        replica_capacity_rps=replica_capacity_rps,
        headroom=sizing.headroom,
        spare=sizing.spare_replicas,
        reason=shaped,
    )
    return build(scales_down=False), build(scales_down=True)


def batch_schedules(question: Question, replicas: int, makespan_s: float) -> tuple[Schedule, Schedule]:
    """(held all the period, held while the job runs) for a job that repeats every period."""
    workload, n = question.workload, len(question.workload.requests)
    period_s = max(workload.period_s or question.deadline_s or makespan_s, makespan_s)
    seconds = np.array([makespan_s, period_s - makespan_s])
    keep = seconds > 0
    build = partial(
        Schedule,
        seconds=seconds[keep],
        load_rps=np.array([n / makespan_s, 0.0])[keep],
        asked_replicas=np.array([float(replicas), 0.0])[keep],
        reason=f"the job repeats every {period_s / SECONDS_PER_H:.3g} h",
    )
    return (
        build(held_replicas=np.full(int(keep.sum()), float(replicas))),
        build(held_replicas=np.array([float(replicas), 0.0])[keep]),
    )


def steady(load_rps: FloatArray, replicas: int, *, seconds: float, reason: str) -> tuple[Schedule, Schedule]:
    """The same replicas, all of them asked for, in every interval of `seconds`, whatever its load (k,)."""
    held = np.full(load_rps.size, float(replicas))
    one = Schedule(
        seconds=np.full(load_rps.size, seconds),
        load_rps=load_rps,
        held_replicas=held,
        asked_replicas=held,
        reason=reason,
    )
    return one, one
