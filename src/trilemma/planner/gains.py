"""Which deployments a looser limit may make the cheapest, told from what is simulated already."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil, inf

from trilemma.cost.subject import Subject
from trilemma.deployment.spec import Deployment
from trilemma.metrics.limits import Limit, Metric
from trilemma.metrics.summary import judge, verdict
from trilemma.planner.answer import APART, Answer, Plan, Rejection, Trial, describe
from trilemma.planner.bench import Bench
from trilemma.planner.candidate import Candidate, typical_of
from trilemma.planner.candidates import fit
from trilemma.planner.moved_limits import looser
from trilemma.planner.question import Question
from trilemma.planner.subjects import subject_of_plan
from trilemma.sim.interval import Error

KNOBS = re.compile(r"\b\d+/\d+\b")  # of a description: max_num_batched_tokens/max_num_seqs

PAIRS = 3  # pairs of pools: nothing but a sizing tells what a looser limit makes of them
UNKNOWN = 2  # deployments of which nothing like them is a plan: each takes a whole sizing


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """A deployment that may become cheaper than the chosen one: the requests per second that a replica
    would have to take for that inside the limits (0: not known), and the least it could cost, at saturation (infinite:
    not known). `deployment` is None where no rate is known to try it at; else `errors` are those of its candidate."""

    label: str
    deployment: Deployment | None
    rate_rps: float
    least_usd_per_h: float
    errors: Mapping[str, Error] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Gains:
    """What the plans and rejections of an answer say of looser limits; `below` is what a plan has to cost to save."""

    question: Question
    answer: Answer
    chosen: Plan
    below_usd_per_h: float

    @cached_property
    def first(self) -> Mapping[str, Plan]:
        """Every deployment at its cheapest offer."""
        found: dict[str, Plan] = {}
        for p in self.answer.plans:
            found.setdefault(describe(p.trial.deployment), p)
        return found

    @cached_property
    def least_usd_per_h(self) -> Mapping[str, float]:
        """What deployments cost if their replicas took all they can at saturation, of those that then save anything."""
        least = {label: least_usd_per_h(p, self.question) for label, p in self.first.items()}
        return {label: usd for label, usd in least.items() if usd < self.below_usd_per_h}

    @cached_property
    def needed_rps(self) -> Mapping[str, float]:
        """What a replica of each promising deployment would have to take."""
        return {
            label: needed_rps(self.first[label], self.question, self.below_usd_per_h) for label in self.least_usd_per_h
        }

    def prepare(self) -> None:
        """Works out what all limits have in common."""
        _ = self.needed_rps

    def by(self, limits: tuple[Limit, ...], most: int) -> list[Chance]:
        """Deployments that looser `limits` may make cheaper than the chosen one, at most `most`.

        A plan has a chance if one of the limits stops its replicas (or it is not known what does): first those whose
        replicas would have to take least more. A third is left to deployments that missed these limits and no other:
        first those whose like with other scheduler knobs has a chance, then those that missed by least.
        """
        found: dict[str, float] = {}
        apart = sorted(self._apart(self.least_usd_per_h), key=lambda label: (self.least_usd_per_h[label], label))
        for label in self.least_usd_per_h:
            p = self.first[label]
            if label not in apart and may_be_stopped_by(p.trial, limits, self.question):
                knee = p.trial.fleet.capacity.knee_rps
                found[label] = self.needed_rps[label] / knee if knee else 0.0
        ranked = sorted(found, key=lambda label: (found[label], label))
        order = dict.fromkeys([*_each_once(ranked), *ranked])
        near = self._nearly(limits)[: most // 3]
        plans = [
            Chance(
                label=label,
                deployment=replace(self.first[label].trial.deployment, replicas=1),
                errors=self.first[label].trial.errors,
                rate_rps=self.needed_rps[label],
                least_usd_per_h=self.least_usd_per_h[label],
            )
            for label in order
        ]
        near += [self._unprobed(label) for label in apart[:PAIRS]]
        return [*plans[: max(0, most - len(near))], *near]

    def _apart(self, labels: Iterable[str]) -> list[str]:
        """Those whose prefill and decode are apart."""
        return [label for label in labels if self.first[label].trial.fleet.decode is not None]

    def _unprobed(self, label: str) -> Chance:
        """A chance that only a sizing tells anything of."""
        return Chance(label=label, deployment=None, rate_rps=0.0, least_usd_per_h=self.least_usd_per_h[label])

    def holding(self, plan: Plan) -> Chance:
        """The chance that a plan keeps its fleet: a replica then takes what it is asked for now."""
        trial, sizing = plan.trial, self.question.sizing
        if trial.fleet.decode is not None:
            label = describe(trial.deployment)
            return Chance(label=label, deployment=None, rate_rps=0.0, least_usd_per_h=plan.usd_per_h)
        sized = subject_of_plan(plan, self.question).replicas is None
        serving = max(1, trial.deployment.replicas - sizing.spare_replicas)
        return Chance(
            label=describe(trial.deployment),
            deployment=replace(trial.deployment, replicas=1),
            errors=trial.errors,
            rate_rps=self.question.asked_rps / serving if sized else 0.0,
            least_usd_per_h=plan.usd_per_h,
        )

    def _too_dear_to_compare(self) -> set[str]:
        """Deployments that keep the limits at a price beyond all that is compared: looser limits may bring them back.
        Those with pools apart are left out."""
        dear = (r.label for r in self.answer.rejected if r.stage == "cost" and APART not in r.label)
        return {label.partition(" x ")[2].rpartition(", ")[0] for label in dear} - self.first.keys()

    def _nearly(self, limits: tuple[Limit, ...]) -> list[Chance]:
        """Rejected deployments that looser limits may let through."""
        reach = {limit: looser(limit)[-1:] for limit in limits}
        alike: dict[str, str] = {}
        together = self.least_usd_per_h.keys() - self._apart(self.least_usd_per_h)
        for label in sorted(together, key=lambda label: (self.needed_rps[label], label)):
            alike.setdefault(but_knobs(label), label)
        planned = {but_knobs(label) for label in self.first}
        missed = {r.label: r.excess for r in self.answer.rejected if _within(r, reach)}
        missed |= {label: inf for label in self._too_dear_to_compare() if but_knobs(label) in alike}
        out = sorted(missed, key=lambda label: (but_knobs(label) not in alike, missed[label], label))
        found: list[Chance] = []
        unknown: list[Chance] = []
        for label in out:
            like = alike.get(but_knobs(label))
            if like is None:
                if but_knobs(label) not in planned and len(unknown) < UNKNOWN:  # else its like saves nothing, nor it
                    unknown.append(Chance(label=label, deployment=None, rate_rps=0.0, least_usd_per_h=inf))
                continue
            found.append(
                Chance(
                    label=label,
                    deployment=with_knobs(self.first[like].trial.deployment, label),
                    errors=self.first[like].trial.errors,  # which are those of all scheduler knobs
                    rate_rps=self.needed_rps[like],
                    least_usd_per_h=self.least_usd_per_h[like],
                )
            )
        return [*found, *unknown]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a replica did at the rate that a chance needs: the numbers that limits bound, and by what each is multiplied
    before it meets its bound. `values` is None for a deployment that does not fit."""

    values: Mapping[str, float | None] | None
    margins: Mapping[Metric, float]

    def keeps(self, limits: tuple[Limit, ...]) -> bool:
        """Whether these limits hold: those that were asked about, with whatever bounds."""
        return self.values is not None and not judge(self.values, limits, margins=self.margins)


def probe(question: Question, chance: Chance) -> Probe:
    """One simulation at the rate that is needed, where a sizing takes ten; of a chance with a deployment."""
    assert chance.deployment is not None
    held = fit(chance.deployment, question)
    if isinstance(held, Rejection):
        return Probe(values=None, margins={})
    typical = typical_of(question)
    bench = Bench(Candidate(deployment=chance.deployment, memory=held, typical=typical, errors=chance.errors), question)
    stream, replicas = bench.streams.at(chance.rate_rps)
    return Probe(values=verdict(bench.play(stream, replicas).timings, question.limits), margins=bench.margins)


def needed_rps(plan: Plan, question: Question, below_usd_per_h: float) -> float:
    """Requests per second that a replica has to take so that the fleet costs less than `below_usd_per_h`: the load over
    the most replicas that do. 0.0 for a job and a closed loop, whose fleets are not sized by a rate."""
    subject, saturated = subject_of_plan(plan, question), plan.trial.fleet.capacity.saturation_rps
    if subject.replicas is not None or subject.decode is not None or not saturated:
        return 0.0
    peak_rps = question.asked_rps

    def costs_less(serving: int) -> bool:
        sized = replace(subject, replica_rps=peak_rps / serving)
        return sized.bill(plan.offer).total_usd_per_h < below_usd_per_h

    low = max(1, ceil(peak_rps / saturated - 1e-9))
    high = max(low + 1, plan.trial.deployment.replicas - question.sizing.spare_replicas)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if costs_less(middle) else (low, middle)
    return min(saturated, peak_rps / low)


def may_be_stopped_by(trial: Trial, limits: tuple[Limit, ...], question: Question) -> bool:
    """Whether a replica could take more if the limits gave way: one stops the knee, or nothing says what does. What a
    goodput limit stops, the others stop: it counts the requests that keep them."""
    capacity = trial.fleet.capacity
    if question.workload.batch or question.workload.clients or capacity.knee_rps is None:
        return True
    first = next((x for x in question.limits if trial.binds.startswith(f"{x.text} ")), None)
    return first is None or first in limits or first.metric is Metric.GOODPUT


def least_usd_per_h(plan: Plan, question: Question) -> float:
    """What a plan would cost if its replicas were asked for all they can do at saturation."""
    saturated = plan.trial.fleet.capacity.saturation_rps
    subject = subject_of_plan(plan, question)
    if subject.replicas is not None or not saturated:
        return 0.0 if question.workload.batch or question.workload.clients else plan.usd_per_h
    return _at_saturation(subject).bill(plan.offer).total_usd_per_h


def _at_saturation(subject: Subject) -> Subject:
    """The fleet whose replicas, of both pools where there are two, take all they can."""
    decode = None if subject.decode is None else _at_saturation(subject.decode)
    return replace(subject, replica_rps=subject.capacity.saturation_rps, decode=decode)


def _within(rejection: Rejection, reach: Mapping[Limit, Sequence[Limit]]) -> bool:
    """Whether a rejected deployment missed nothing but limits that, moved as far as they go, let it through; a goodput
    limit is missed because of others."""
    return bool(rejection.misses) and all(
        m.limit.metric is Metric.GOODPUT or any(x.holds(m.got) for x in reach.get(m.limit, ()))
        for m in rejection.misses
    )


def with_knobs(deployment: Deployment, label: str) -> Deployment:
    """One replica of the deployment with the scheduler knobs that a description names."""
    knobs = KNOBS.search(label)
    assert knobs is not None  # every description names them
    tokens, seats = (int(number) for number in knobs[0].split("/"))
    changed = replace(deployment.knobs, max_num_batched_tokens=tokens, max_num_seqs=seats)
    return replace(deployment, knobs=changed, replicas=1)


def _each_once(labels: Sequence[str]) -> list[str]:
    """The first of those that differ in scheduler knobs alone.

    >>> _each_once(["l4 TP2 fp8 vllm 512/64", "l4 TP1 fp8 vllm 512/64", "l4 TP2 fp8 vllm 2048/64"])
    ['l4 TP2 fp8 vllm 512/64', 'l4 TP1 fp8 vllm 512/64']
    """
    first: dict[str, str] = {}
    for label in labels:
        first.setdefault(but_knobs(label), label)
    return list(first.values())


def but_knobs(label: str) -> str:
    """A description without its scheduler knobs.

    >>> but_knobs("h100_sxm TP4 fp8 vllm 8192/1024 mtp")
    'h100_sxm TP4 fp8 vllm mtp'
    """
    return re.sub(rf" {KNOBS.pattern}", "", label)
