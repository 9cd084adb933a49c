"""What is priced: a deployment with its load, from a plan, a simulation or a measured run, ready for any offer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import exp, hypot, log
from typing import Any

from trilemma.api.chosen import held, saturated, staged
from trilemma.api.question import Asked
from trilemma.cost.draws import INTERVAL_Z, NORMAL
from trilemma.cost.subject import Subject, replica_rps_of
from trilemma.errors import UnsupportedError
from trilemma.metrics.summary import Summary
from trilemma.planner.answer import Fleet, Plan, Rejection, Trial, describe
from trilemma.planner.candidates import screen
from trilemma.planner.plan import Progress
from trilemma.planner.question import Question
from trilemma.report.document import limit_dict
from trilemma.sim.interval import Error

Errors = Mapping[str, Error]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Priced:
    """A subject with where it is from: `what` is "plan", "simulation" or "measured run", `sentence` says it in words.

    `capacity` are the ends of the 80% interval of what a replica can take, over what it is sized by. `limits` are
    documents of the limits it was held against.
    """

    what: str
    sentence: str
    subject: Subject
    limits: tuple[Mapping[str, Any], ...]
    capacity: tuple[float, float]
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The deployment in one line, replicas first."""
        return f"{self.subject.deployment.replicas} x {describe(self.subject.deployment)}"


def priced_plan(plan: Plan, question: Question) -> Priced:
    """A plan: sized by the planner, so that another load is sized alike."""
    trial = plan.trial
    screened = screen(replace(trial.deployment, replicas=1), question)
    if isinstance(screened, Rejection):
        raise UnsupportedError(f"{screened.label}: {screened.reason}")
    subject = subject_of(trial.fleet, question, is_sized=True)
    tokens_per_s = capacity_interval(screened.errors, trial.summary)
    return Priced(
        what="plan",
        sentence=f"the cheapest plan inside the limits: {trial.deployment.replicas} x {describe(trial.deployment)}",
        subject=subject,
        limits=limits_of(trial, question),
        capacity=tokens_per_s if subject.replicas is not None else over_knee(tokens_per_s, question.confidence),
        notes=trial.notes,
    )


def priced_simulation(asked: Asked, deployment: Mapping[str, Any], progress: Progress) -> Priced:
    """A deployment in flags, simulated under the scenario's load, at the number of replicas asked for."""
    progress(0, 3, "choosing")
    replicas, stage = staged(asked, deployment)
    trial = held(stage, saturated(stage, progress), replicas, progress)
    return Priced(
        what="simulation",
        sentence=f"a simulation of the scenario's load on {replicas} x {describe(trial.deployment)}, as the flags say",
        subject=subject_of(trial.fleet, asked.question, is_sized=False),
        limits=limits_of(trial, asked.question),
        capacity=capacity_interval(stage.candidate.errors, trial.summary),
        notes=trial.notes,
    )


def subject_of(fleet: Fleet, question: Question, *, is_sized: bool) -> Subject:
    """A fleet as what offers are compared on. One that the planner sized for a stream of requests is sized anew for
    another load, by the same policy; replicas that were given, of clients or of a job stay in proportion to it."""
    workload, sizing, knee = question.workload, question.sizing, fleet.capacity.knee_rps
    follows = is_sized and knee is not None and not workload.batch and not workload.clients
    replicas, replica_rps = fleet.deployment.replicas, None
    if follows and knee is not None:
        replica_rps = replica_rps_of(
            replicas, peak_rps=workload.sizing_rps, knee_rps=knee, headroom=sizing.headroom,
            spare=sizing.spare_replicas,
        )  # fmt: skip
    return Subject(
        deployment=fleet.deployment,
        activity=fleet.activity,
        capacity=fleet.capacity,
        seconds=fleet.schedule.seconds,
        load_rps=fleet.schedule.load_rps,
        economics=question.economics,
        headroom=sizing.headroom,
        spare=sizing.spare_replicas,
        replicas=None if follows else replicas,
        replica_rps=replica_rps,
        is_job=workload.batch,
        as_of=question.as_of,
        reason=fleet.schedule.reason,
    )


def limits_of(trial: Trial, question: Question) -> tuple[Mapping[str, Any], ...]:
    """Documents of the question's limits, judged with the prediction's margins."""
    return tuple(limit_dict(x, trial.summary, trial.margins.get(x.metric, 1.0)) for x in question.limits)


def capacity_interval(errors: Errors, summary: Summary) -> tuple[float, float]:
    """The ends of the 80% interval of a replica's tokens/s, over those predicted.

    A replica is as much slower as its requests take longer: the doubts of TPOT and of TTFT, taken to be independent,
    weighed by their shares of a request's time, as `trilemma predict` does.
    """
    ttft_s, e2e_s = (summary.values.get(key) for key in ("ttft_mean_s", "e2e_mean_s"))
    share = 1.0
    if ttft_s is not None and e2e_s is not None and 0 < ttft_s <= e2e_s < float("inf"):
        share = 1 - ttft_s / e2e_s

    def far(side: int) -> float:
        tpot, ttft = errors["tpot"], errors["ttft"]
        return hypot(share * tpot.quantiles[side] * tpot.deviation, (1 - share) * ttft.quantiles[side] * ttft.deviation)

    return exp(-far(1)), exp(far(0))


def over_knee(interval: tuple[float, float], confidence: float) -> tuple[float, float]:
    """The interval of tokens/s, over those predicted, as one of the load a replica takes, over the knee found.

    The planner finds the knee with the limits tightened, so that they are kept with probability `confidence`: the
    knee is no median but what a replica exceeds that often.

    >>> over_knee((0.8, 1.25), 0.5), [round(x, 2) for x in over_knee((0.8, 1.25), 0.9)]
    ((0.8, 1.25), [1.0, 1.56])
    """
    low, high = interval
    middle, spread = log(low * high) / 2, log(high / low) / (2 * INTERVAL_Z)
    knee = exp(middle + spread * NORMAL.inv_cdf(1 - confidence))
    return low / knee, high / knee
