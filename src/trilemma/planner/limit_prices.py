"""The price of each bound: what a year would cost less if it gave way, and how far it can be tightened for nothing."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import Self

from trilemma.catalogue.quality import quality_of
from trilemma.deployment.weights import total_params
from trilemma.metrics.limits import Limit, Metric
from trilemma.planner.answer import Answer, Plan, Trial, describe
from trilemma.planner.candidates import BF16_KV_BYTES, deployments, nodes_of
from trilemma.planner.explanation import TOGETHER, LimitPrice, Step
from trilemma.planner.gains import Chance, Gains, Probe, probe
from trilemma.planner.moved_limits import LOOSER, looser, moved, tighter, with_limit
from trilemma.planner.nearness import Nearness
from trilemma.planner.plan import HERE, Executor, Looked, look
from trilemma.planner.question import Question
from trilemma.units import HOURS_PER_YEAR

CENT = 0.01  # $/h: what costs the same to the cent costs the same
WORTH = 0.005  # of the chosen plan's price: smaller savings are rounding
EFFORT = 0.3  # of the simulations of the plan itself
LEAST_SIMULATIONS = 150  # for each bound, where the plan took next to none
FEWEST, FEW, MOST_LOOKED_AT = 3, 8, 12  # deployments sized with a bound moved: at least, in a space of few, and at most
PROBED = 0.3  # of the simulations: probes, of which one tells whether a deployment can save anything
RESIZED_PER_BOUND = 3.0  # sizings of a bound for each deployment that is looked at


@dataclass
class Prices:
    """Prices the bounds of an answered question; counts the simulations that takes."""

    question: Question
    answer: Answer
    chosen: Plan
    executor: Executor = HERE
    gains: Gains = field(init=False)
    most: int = field(init=False)
    probes: int = field(init=False)
    near: Nearness = field(init=False, default_factory=Nearness)
    probed: dict[tuple[str, float], Probe] = field(init=False, default_factory=dict)
    played: list[int] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        below = (1 - WORTH) * self.chosen.usd_per_h - CENT / 2
        self.gains = Gains(question=self.question, answer=self.answer, chosen=self.chosen, below_usd_per_h=below)
        counts, bounds = self.answer.counts, 1 + len(self.question.limits)
        a_sizing = counts.simulations / max(1, counts.simulated)
        allowed = max(EFFORT * counts.simulations / bounds, LEAST_SIMULATIONS)
        self.most = max(
            FEWEST,
            FEW if counts.simulated <= 2 * FEW else 0,
            min(MOST_LOOKED_AT, int((1 - PROBED) * allowed / a_sizing / RESIZED_PER_BOUND)),
        )
        self.probes = round(PROBED * allowed)
        for p in reversed(self.answer.plans):
            capacity = p.trial.fleet.capacity
            self.near.note(p.trial.deployment, capacity.knee_rps, capacity.saturation_rps or 0.0)

    @property
    def simulations(self) -> int:
        """Simulations so far; a probe that several bounds ask for counts once."""
        return len(self.probed) + sum(self.played)

    def _alone(self) -> Self:
        """The same for one bound: where its searches start depends on no other bound, so that all may be priced at
        once."""
        one = copy(self)
        one.near = deepcopy(self.near)
        return one

    def look(self, question: Question, labels: frozenset[str]) -> Looked:
        """Deployments of the space by their descriptions, sized for another question."""
        looked = look(question, executor=self.executor, only=labels, cut=inf, near=self.near)
        self.played.append(looked.simulations)
        return looked

    def probe_ahead(self) -> None:
        """Probes what every bound asks for first, in one go."""
        limits = self.question.limits
        if any(limit.metric is Metric.GOODPUT for limit in limits):
            return  # what counts as goodput changes with the limits, and with it what a probe says
        together = [(limit,) for limit in limits if looser(limit)] + ([limits] if len(limits) > 1 else [])
        chances = {(x.label, x.rate_rps): x for some in together for x in self.gains.by(some, self.probes)}
        self._probe(self.question, _to_be_probed(chances.values()))

    def of_limit(self, limit: Limit) -> LimitPrice:
        """What one limit costs."""
        steps = looser(limit)
        first, last = self._first_saving(
            [with_limit(self.question, limit, step) for step in steps], self.gains.by((limit,), self.probes)
        )
        reached = self.chosen.trial.summary.value(limit)
        judged = None if reached is None else reached * self.chosen.trial.margins.get(limit.metric, 1.0)
        return LimitPrice(
            bound=limit.text,
            tried=steps[-1].text if steps else limit.text,
            relaxed=None if first is None else self._step(steps[first[0]].text, first[1]),
            furthest=None if last is None else self._step(steps[-1].text, last),
            free=self._tightest(limit, tighter(limit, judged)),
        )

    def of_all(self) -> LimitPrice:
        """What all limits cost that are loosened by the same factor: one alone may save nothing because the next one
        stops the same replicas."""
        limits = self.question.limits
        asked = [replace(self.question, limits=tuple(moved(x, f) for x in limits)) for f in LOOSER]
        first, last = self._first_saving(asked, self.gains.by(limits, self.probes))

        def told(i: int) -> str:
            return ", ".join(x.text for x in asked[i].limits)

        return LimitPrice(
            bound=TOGETHER,
            tried=told(-1),
            relaxed=None if first is None else self._step(told(first[0]), first[1]),
            furthest=None if last is None else self._step(told(-1), last),
            free=None,
        )

    def _step(self, text: str, plan: Plan) -> Step:
        saved = (self.chosen.usd_per_h - plan.usd_per_h) * HOURS_PER_YEAR
        return Step(bound=text, plan=plan, saves_usd_per_year=saved)

    def _cheapest(self, looked: Looked) -> dict[str, Plan]:
        """The plans that save something, the cheapest of each deployment, cheapest first."""
        found: dict[str, Plan] = {}
        for p in looked.plans:
            if p.usd_per_h < self.gains.below_usd_per_h:
                found.setdefault(describe(p.trial.deployment), p)
        return found

    def _first_saving(
        self, questions: Sequence[Question], chances: list[Chance]
    ) -> tuple[tuple[int, Plan] | None, Plan | None]:
        """((the first of ever looser questions at which something is saved, its cheapest plan), the cheapest plan of
        the last question). More is never dearer, so that the last decides whether, and halving finds where."""
        if not questions:
            return None, None
        left = self._probed(questions[-1], chances)
        saving = self._sized(questions[-1], left, self.most)
        if not saving:
            return None, None
        last = next(iter(saving.values()))
        # What is sized and saves nothing here saves nothing before; what is not sized yet may.
        left = [x for i, x in enumerate(left) if x.label in saving or (i >= self.most and x.rate_rps)][: 2 * self.most]
        low, high = -1, len(questions) - 1
        while high - low > 1:
            middle = (low + high) // 2
            passing = self._probed(questions[middle], left)
            if not all(x.rate_rps for x in passing):  # no probe tells: size them
                saving = self._sized(questions[middle], passing, self.most)
                passing = [x for x in passing if x.label in saving]
            low, high = (low, middle) if passing else (middle, high)
        for first in range(high, len(questions) - 1):  # what passes a probe may still fail on the whole workload
            saving = self._sized(questions[first], self._probed(questions[first], left), max(FEWEST, self.most // 2))
            if saving:
                best = next(iter(saving.values()))
                return (first, best), min(last, best, key=lambda p: p.usd_per_h)  # what keeps a step keeps the furthest
        return (len(questions) - 1, last), last

    def _probed(self, question: Question, chances: list[Chance]) -> list[Chance]:
        """The chances that a probe leaves: by turns those that could be the cheapest of all, and those that need the
        least to be cheaper."""
        probes = self._probe(question, _to_be_probed(chances))
        left = [x for x in chances if x.label not in probes or probes[x.label].keeps(question.limits)]
        cheap = sorted(left, key=lambda chance: (chance.least_usd_per_h, chance.label))
        turns = (chance for pair in zip(cheap, left, strict=True) for chance in pair)
        return list({chance.label: chance for chance in turns}.values())

    def _probe(self, question: Question, chances: list[Chance]) -> dict[str, Probe]:
        """What replicas of the chances do, by label. A run is the same whatever its limits are, so that one tells of
        all their steps; but what counts as goodput changes with them."""
        counts_goodput = any(limit.metric is Metric.GOODPUT for limit in question.limits)
        asked, known = (question, {}) if counts_goodput else (self.question, self.probed)
        new = [x for x in chances if (x.label, x.rate_rps) not in known]
        for chance, found in zip(new, self.executor.map(partial(probe, asked), new), strict=True):
            known[chance.label, chance.rate_rps] = found
        if counts_goodput:
            self.played.append(len(new))
        return {x.label: known[x.label, x.rate_rps] for x in chances}

    def _sized(self, question: Question, chances: list[Chance], most: int) -> dict[str, Plan]:
        """The plans of the first of the chances that save something, cheapest first."""
        labels = frozenset(chance.label for chance in chances[:most])
        return self._cheapest(self.look(question, labels)) if labels else {}

    def _tightest(self, limit: Limit, steps: Sequence[Limit]) -> str | None:
        """The tightest of the steps at which the chosen deployment, or one that costs the same, still costs that."""
        most = self.chosen.usd_per_h + CENT / 2
        same = [p for p in self.answer.plans if p.usd_per_h <= most]
        held = {describe(p.trial.deployment): self.gains.holding(p) for p in (self.chosen, *same)}
        chances = list(held.values())[:2]
        low, high = -1, len(steps)
        while high - low > 1:
            middle = (low + high) // 2
            asked = with_limit(self.question, limit, steps[middle])
            passing = self._probed(asked, chances)
            holds = bool(passing) and (all(x.rate_rps for x in passing) or self._costs_no_more(asked, passing, most))
            low, high = (middle, high) if holds else (low, middle)
        for last in range(low, -1, -1):
            if self._costs_no_more(with_limit(self.question, limit, steps[last]), chances, most):
                return steps[last].text
        return None

    def _costs_no_more(self, question: Question, chances: list[Chance], most_usd_per_h: float) -> bool:
        plans = self.look(question, frozenset(chance.label for chance in chances)).plans
        return bool(plans) and plans[0].usd_per_h <= most_usd_per_h

    def of_count(self, name: str) -> LimitPrice:
        """What `max_gpus` or `max_nodes` costs: the deployments that were too large, without it."""
        space = self.question.space
        bound = getattr(space, name)
        out = sorted(
            (r for r in self.answer.rejected if r.stage == "size" and name in r.reason),
            key=lambda r: (r.gpus_needed or r.nodes_needed or 0, r.label),
        )
        labels = frozenset([r.label for r in out][: self.most])
        open_space = replace(space, max_gpus=None) if name == "max_gpus" else replace(space, max_nodes=None)
        saving = self._cheapest(self.look(replace(self.question, space=open_space), labels)) if labels else {}
        needs = {label: _counted(p, name) for label, p in saving.items()}
        nearest = min(saving, key=lambda label: (needs[label], saving[label].usd_per_h), default=None)
        best = next(iter(saving), None)
        used = _counted(self.chosen, name)
        return LimitPrice(
            bound=f"{name} {bound}",
            tried=f"no {name}",
            relaxed=None if nearest is None else self._step(f"{name} {needs[nearest]}", saving[nearest]),
            furthest=None if best is None else self._step(f"{name} {needs[best]}", saving[best]),
            free=f"{name} {used}" if used < bound else None,
        )

    def of_accuracy(self) -> LimitPrice:
        """What `max_accuracy_loss_pct` costs: the deployments it left out, those first that differ from a plan by
        nothing else than their formats."""
        name = "max_accuracy_loss_pct"
        space = self.question.space
        out = {r.label for r in self.answer.rejected if r.stage == "support" and name in r.reason}
        alike = {_but_formats(p.trial): p.usd_per_h for p in reversed(self.answer.plans)}
        known = [
            (alike.get((d.accelerator.name, d.parallelism, d.engine.name, d.knobs), inf), describe(d))
            for d in (deployments(self.question) if out else ())
            if describe(d) in out
        ]
        labels = frozenset(label for _, label in sorted(known)[: self.most])
        free = replace(self.question, space=replace(space, max_accuracy_loss_pct=None))
        saving = self._cheapest(self.look(free, labels)) if labels else {}
        best = next(iter(saving.values()), None)
        nearest = min(saving.values(), key=lambda p: (loss_pct(p), p.usd_per_h), default=None)

        def told(plan: Plan) -> str:
            loss = loss_pct(plan)
            return f"{name} {loss:.2g}" if loss < inf else f"no {name}"

        return LimitPrice(
            bound=f"{name} {space.max_accuracy_loss_pct:g}",
            tried=f"no {name}",
            relaxed=None if nearest is None else self._step(told(nearest), nearest),
            furthest=None if best is None else self._step(told(best), best),
            free=None,
        )

    def bounds(self) -> Iterator[tuple[str, Callable[[], LimitPrice]]]:
        """Every bound of the question, with what prices it; in any order, or all at once."""
        for limit in self.question.limits:
            yield limit.text, partial(self._alone().of_limit, limit)
        if len(self.question.limits) > 1:
            yield TOGETHER, self._alone().of_all
        for name in ("max_gpus", "max_nodes"):
            if getattr(self.question.space, name) is not None:
                yield name, partial(self._alone().of_count, name)
        if self.question.space.max_accuracy_loss_pct is not None:
            yield "max_accuracy_loss_pct", self._alone().of_accuracy


def _to_be_probed(chances: Iterable[Chance]) -> list[Chance]:
    return [x for x in chances if x.rate_rps and x.deployment is not None]


def loss_pct(plan: Plan) -> float:
    """What a plan's formats lose in published scores, percent; infinite where one of them has no score."""
    d = plan.trial.deployment
    names = [] if d.precision.name in {d.model.precision, "bf16"} else [d.precision.name]
    names += ["fp8_kv"] if d.kv_bytes_per_element < BF16_KV_BYTES else []
    found = [quality_of(name, total_params(d.model)) for name in names]
    return max((inf if one is None else one.loss_pct for one in found), default=0.0)


def _counted(plan: Plan, name: str) -> int:
    """GPUs, or whole nodes, of all replicas."""
    d = plan.trial.deployment
    if name == "max_gpus":
        return d.gpus
    return sum(nodes_of(pool.accelerator, pool.replicas, pool.parallelism.gpus) for pool in d.pools)


def _but_formats(trial: Trial) -> tuple[object, ...]:
    d = trial.deployment
    return (d.accelerator.name, d.parallelism, d.engine.name, d.knobs)
