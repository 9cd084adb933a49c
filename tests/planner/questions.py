"""Small questions: `small.yaml` with keys changed, and the workloads it is asked with."""

import json
from functools import cache
from pathlib import Path

from trilemma.api.question import ask
from trilemma.planner.plan import plan

SMALL = Path(__file__).parent / "small.yaml"

# A day with a dead night, a morning and a peak in the afternoon.
DAY = {"workload.profile": {"multipliers": [0, 0, 1, 2, 4, 6, 8, 10, 6, 4, 2, 1] * 2, "trace_is": "peak"}}
MEAN = {"workload.profile": DAY["workload.profile"] | {"trace_is": "mean"}}
VARIED = {
    "prompt": {"distribution": "uniform", "low": 100, "high": 4000},
    "output": {"distribution": "uniform", "low": 1, "high": 300},
}
BATCH = {
    "workload": {"arrivals": {"process": "batch", "requests": 1500}, "lengths": VARIED, "period": "1 h"},
    "limits": ["deadline <= 60 s"],
}
CLOSED = {
    "workload": {"arrivals": {"process": "closed_loop", "requests": 800, "concurrency": 80}, "lengths": VARIED},
    "limits": ["ttft p95 <= 2 s", "tpot mean <= 30 ms"],
}
STREAMS = {"steady": {}, "day": DAY}
WORKLOADS = STREAMS | {"batch": BATCH, "closed loop": CLOSED}


def question(*changes, **more):
    """The question of small.yaml with dotted keys replaced."""
    return ask(SMALL, overrides=together(*changes, more)).question


def together(*changes):
    """Several sets of changes as one, the last word winning."""
    return {key: value for change in changes for key, value in change.items()}


def answer(*changes):
    """The answer to `question(*changes)`; asked once, since the same question has the same answer."""
    return _answer(json.dumps(together(*changes)))


@cache
def _answer(changes):
    return plan(question(json.loads(changes)))


def cost(*changes):
    """$/h of the chosen plan; infinite where nothing is feasible."""
    chosen = answer(*changes).chosen
    return float("inf") if chosen is None else chosen.usd_per_h


def by_shape(plans):
    """The plans of each deployment, replicas and offers apart: all at the same number of replicas."""
    from trilemma.planner.answer import describe

    shapes = {}
    for p in plans:
        shapes.setdefault(describe(p.trial.deployment), []).append(p)
    return shapes
