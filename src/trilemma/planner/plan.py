"""A question to an answer: enumerate, screen, simulate, size, price, choose, and say why."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

import numpy as np

from trilemma.catalogue.offer import Offer
from trilemma.cost.bill import Bill, bill
from trilemma.cost.fleet import CHARGES_ALL_DAY
from trilemma.errors import InfeasibleError, InputError
from trilemma.planner.answer import Answer, Counts, Fleet, NearestMiss, Plan, Rejection, Trial, describe
from trilemma.planner.bench import saturation_of
from trilemma.planner.candidates import Candidate, deployments, screen
from trilemma.planner.evaluate import evaluate, smallest_fleet
from trilemma.planner.question import Question
from trilemma.planner.relaxation import changes, relax
from trilemma.search.pareto import non_dominated
from trilemma.units import show_usd

Progress = Callable[[int, int, str], None]
T = TypeVar("T")
R = TypeVar("R")
WAVE = 32  # candidates simulated before the price bound is looked at again
CUT = 2.0
RELAXATIONS = 4  # bounds moved one after another before an infeasible question is given up
STAGES = ("limits", "size", "memory", "support", "bound", "cost")


class Executor(Protocol):
    """Spreads independent work; results come in the order of the items, whoever does them."""

    def map(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterable[R]:
        """function(item) for every item, in order."""
        ...


class Here:
    """Does the work in this process."""

    def map(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterable[R]:
        """function(item) for every item, in order."""
        return map(function, items)


HERE = Here()


def quiet(_done: int, _total: int, _what: str) -> None:
    """Reports no progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """Every candidate of a space after simulation: priced plans, and why the rest is out."""

    plans: tuple[Plan, ...]
    rejected: tuple[Rejection, ...]
    shapes: int
    candidates: int
    simulated: int
    sized: int
    simulations: int


def look(
    question: Question,
    progress: Progress = quiet,
    executor: Executor = HERE,
    *,
    only: frozenset[str] | None = None,
    cut: float = CUT,
) -> Looked:
    """Screen the whole space (or the deployments whose description is in `only`), bound every candidate's price from
    below, simulate cheapest bound first.

    The bound prices the fleet at saturation throughput without busy energy, which no real fleet undercuts. Candidates
    whose bound exceeds `cut` x the cheapest plan of the waves before are left out: they cannot be chosen. Waves have a
    fixed size, so the answer does not depend on how many processes there are.
    """
    every = [d for d in deployments(question) if only is None or describe(d) in only]
    if not every and only is None:
        raise InputError(
            "space.max_num_seqs", expected="at most space.max_num_batched_tokens, or the engine's default budget",
            found=", ".join(map(str, question.space.max_num_seqs)),
        )  # fmt: skip
    rejected: list[Rejection] = []
    screened: list[Candidate] = []
    for deployment in every:
        seen = screen(deployment, question)
        if isinstance(seen, Rejection):
            rejected.append(seen)
        else:
            screened.append(seen)
    progress(0, len(screened), "bounding")
    saturated = list(executor.map(partial(saturation_of, question), screened))
    floors = [floor_usd_per_h(c, rps, question) for c, rps in zip(screened, saturated, strict=True)]
    ranked = sorted(range(len(screened)), key=lambda i: (floors[i], i))
    plans: list[Plan] = []
    simulations, simulated, sized, best = len(screened), 0, 0, float("inf")
    for start in range(0, len(ranked), WAVE):
        wave = []
        for i in ranked[start : start + WAVE]:
            if floors[i] > cut * best:
                reason = f"at least {show_usd(floors[i])}/h even at saturation, over {cut:g} x the cheapest plan"
                label = describe(screened[i].deployment)
                rejected.append(Rejection(label=label, stage="bound", reason=reason, usd_per_h=floors[i]))
            else:
                wave.append((screened[i], saturated[i]))
        left_out = len(ranked[start : start + WAVE]) - len(wave)
        for done, (outcome, played) in enumerate(executor.map(partial(evaluate, question), wave), 1):
            simulated += 1
            simulations += played
            if isinstance(outcome, Rejection):
                rejected.append(outcome)
            else:
                sized += 1
                plans += _priced(outcome, question, rejected)
            progress(start + left_out + done, len(ranked), "simulating")
        best = min([best, *(p.usd_per_h for p in plans)])
    progress(len(ranked), len(ranked), "done")
    return Looked(
        plans=tuple(sorted(plans, key=_rank)),
        rejected=tuple(rejected),
        shapes=len(every),
        candidates=sum(len(question.space.offers_for(d.accelerator)) for d in every),
        simulated=simulated,
        sized=sized,
        simulations=simulations,
    )


def _rank(p: Plan) -> tuple[float, float, float, str]:
    """Cheapest first; what costs the same to the cent by the wider weights and cache, since nothing is saved by
    quantising, then by the shorter tail, then by name."""
    d, tail = p.trial.deployment, p.trial.summary.values.get("ttft_p99_s")
    bits = d.precision.bits_per_weight + d.kv_bytes_per_element
    return round(p.usd_per_h, 2), -bits, float("inf") if tail is None else tail, p.label


def _priced(trial: Trial, question: Question, rejected: list[Rejection]) -> list[Plan]:
    """The trial at every offer of its accelerator; a rejection where there is none."""
    offers = question.space.offers_for(trial.deployment.accelerator)
    if not offers:
        reason = f"no offer of {trial.deployment.accelerator.name} in the space"
        rejected.append(Rejection(label=describe(trial.deployment), stage="cost", reason=reason))
    return [price(trial, offer, question) for offer in offers]


def price(trial: Trial, offer: Offer, question: Question) -> Plan:
    """The trial at one offer."""
    return Plan(trial=trial, offer=offer, bill=_bill(trial.fleet, offer, question))


def _bill(fleet: Fleet, offer: Offer, question: Question) -> Bill:
    """On-demand and spot fleets shrink with the load; owned and reserved ones are paid anyway."""
    return bill(
        fleet.deployment,
        offer,
        question.economics,
        fleet.deployment.engine,
        fleet.activity,
        fleet.capacity,
        fleet.schedule if offer.kind in CHARGES_ALL_DAY else fleet.scaled_schedule,
        as_of=question.as_of,
    )


def floor_usd_per_h(candidate: Candidate, saturated_rps: float, question: Question) -> float:
    """Less than the candidate can cost at its cheapest offer: a fleet at saturation that burns no busy energy.

    0.0, no bound, where nothing is served or offered (the reason is still to be found) and for a closed loop.
    """
    offers = question.space.offers_for(candidate.deployment.accelerator)
    if saturated_rps <= 0 or not offers or question.workload.clients:
        return 0.0
    fleet = smallest_fleet(candidate, saturated_rps, question)
    return min(_bill(fleet, offer, question).total_usd_per_h for offer in offers)


def plan(question: Question, progress: Progress = quiet, executor: Executor = HERE) -> Answer:
    """The cheapest deployment that meets the limits, its frontier, and a reason for everything else.

    Never raises for an infeasible question: `chosen` is None and `nearest` says how close it gets. Raises InputError
    where the space is empty to begin with.
    """
    check(question)
    looked = look(question, progress, executor)
    plans = looked.plans
    chosen = plans[0] if plans else None
    rejected = looked.rejected
    if chosen is not None:
        rejected += tuple(_dearer(p, chosen) for p in plans[1:])
    return Answer(
        name=question.name,
        chosen=chosen,
        plans=plans,
        frontier=frontier(plans),
        rejected=rejected,
        nearest=None if chosen is not None else _nearest(question, looked.rejected, executor),
        counts=Counts(
            shapes=looked.shapes,
            candidates=looked.candidates,
            simulated=looked.simulated,
            sized=looked.sized,
            simulations=looked.simulations,
        ),
        warnings=question.workload.notes,
    )


def check(question: Question) -> None:
    """Raises InputError for a space with nothing in it."""
    space = question.space
    for name, values in (
        ("accelerators", space.accelerators),
        ("offers", space.offers),
        ("precisions", space.precisions),
        ("engines", space.engines),
        ("tensor_parallel", space.tensor_parallel),
    ):
        if not values:
            raise InputError(f"space.{name}", expected="at least one value that fits the rest", found="none")


def _dearer(p: Plan, chosen: Plan) -> Rejection:
    more = p.usd_per_h - chosen.usd_per_h
    reason = f"meets the limits, {show_usd(more)}/h dearer ({show_usd(p.usd_per_h)}/h)"
    return Rejection(label=p.label, stage="cost", reason=reason, usd_per_h=p.usd_per_h)


def frontier(plans: tuple[Plan, ...]) -> tuple[Plan, ...]:
    """Plans that no other beats at once on tokens/s/GPU, p99 TTFT and $/Mtoken of output, cheapest first."""
    if not plans:
        return ()
    points = np.array(
        [
            [
                -p.trial.output_tokens_per_s_per_gpu,
                p.trial.summary.values.get("ttft_p99_s") or np.inf,
                p.bill.usd_per_mtok_output or np.inf,
            ]
            for p in plans
        ]
    )
    points = np.array([[float(f"{x:.3g}") for x in row] for row in points.tolist()])  # nobody sees the fourth digit
    keep = non_dominated(points)
    unique: dict[tuple[float, ...], Plan] = {}
    for row, p, kept in zip(points.tolist(), plans, keep.tolist(), strict=True):
        if kept:
            unique.setdefault(tuple(row), p)
    front = tuple(unique.values())
    return front if plans[0] in front else (plans[0], *front)


def _nearest(question: Question, rejected: tuple[Rejection, ...], executor: Executor) -> NearestMiss | None:
    """The cheapest plan once the bounds that stop everything are relaxed as little as the closest candidate needs.

    None where no bound is the reason: nothing fits, or nothing is offered.
    """
    asked = question
    for _ in range(RELAXATIONS):
        relaxation = relax(question, rejected)
        if relaxation is None:
            return None
        question = relaxation.question
        looked = look(question, executor=executor, only=relaxation.labels, cut=float("inf"))
        if looked.plans:
            best = looked.plans[0]
            if asked.space.max_gpus is not None and question.space.max_gpus is None:
                best = min(looked.plans, key=lambda p: (p.trial.deployment.gpus, p.usd_per_h))
                question = replace(question, space=replace(question.space, max_gpus=best.trial.deployment.gpus))
            return NearestMiss(plan=best, relaxation=changes(asked, question))
        rejected = looked.rejected
    return None


def raise_if_infeasible(answer: Answer) -> None:
    """InfeasibleError with the nearest miss and the cheapest relaxation, where nothing was chosen."""
    if answer.chosen is not None:
        return
    text = f"{answer.name}: no deployment of the space meets the limits"
    if answer.nearest is not None:
        nearest, changes = answer.nearest.plan, ", ".join(answer.nearest.relaxation)
        text += f"; nearest: relax {changes}, and {nearest.label} does it for {show_usd(nearest.usd_per_h)}/h"
    elif answer.rejected:
        first = min(answer.rejected, key=lambda r: STAGES.index(r.stage))
        text += f"; for example {first.label}: {first.reason}"
    raise InfeasibleError(text)
