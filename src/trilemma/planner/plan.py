"""A question to an answer: enumerate, bound, simulate, size, price, choose, and say why."""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from math import ceil, inf

from trilemma.errors import InfeasibleError, InputError
from trilemma.planner.answer import Answer, Counts, NearestMiss, Plan, Rejection, Trial, describe
from trilemma.planner.candidate import Candidate
from trilemma.planner.candidates import by_label, deployments, without
from trilemma.planner.contradictions import check_together
from trilemma.planner.disaggregated import Found, look_apart
from trilemma.planner.evaluate import Task, evaluate_task
from trilemma.planner.floors import Floors
from trilemma.planner.nearness import Likely, Nearness
from trilemma.planner.priced import dearer, frontier, price, priced, rank, usd_per_month
from trilemma.planner.question import Objective, Question, Space
from trilemma.planner.relaxation import changes, just_enough, nodes_taken, relax
from trilemma.planner.screening import Bounded, bound_all, fitting, in_batches, saturate_all
from trilemma.planner.work import HERE, Executor, Here, Interrupted, Progress, quiet, side_by_side
from trilemma.units import show_usd

__all__ = [
    "CUT", "HERE", "Executor", "Here", "Interrupted", "Looked", "Progress", "check", "frontier",
    "look", "plan", "price", "quiet", "raise_if_infeasible",
]  # fmt: skip

WAVE = 16  # candidates simulated before the price bound is looked at again
AT_ONCE = 2  # waves on their way
BLOCK = 8  # waves of candidates whose saturation is asked for in one go
CUT = 2.0
RIVALS = 512  # candidates simulated for the comparison; beyond, only those that might still be the cheapest
CENT = 0.01  # $/h: plans that cost the same to the cent are told apart otherwise
RELAXATIONS = 4  # bounds moved one after another before an infeasible question is given up
Outcomes = list[tuple[Trial | Rejection, int]]  # of tasks, each with the simulations that it took
STAGES = ("limits", "size", "memory", "support", "bound", "cost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """Every candidate of a space after simulation: priced plans, cheapest first, and why the rest is out. Not
    `complete` where it was interrupted: what was not looked at is then in neither."""

    plans: tuple[Plan, ...]
    rejected: tuple[Rejection, ...]
    shapes: int
    candidates: int
    simulated: int
    sized: int
    simulations: int
    complete: bool = True


def look(
    question: Question,
    progress: Progress = quiet,
    executor: Executor = HERE,
    *,
    only: frozenset[str] | None = None,
    cut: float = CUT,
    near: Nearness | None = None,
) -> Looked:
    """Screen the whole space (or the deployments whose description is in `only`), bound what each candidate can do and
    cost, simulate cheapest bound first.

    A candidate that misses a limit even alone on a replica is out. So is one whose price bound exceeds `cut` x the
    cheapest plan of the waves before: it cannot be chosen. The bound prices the fewest replicas that any schedule
    allows, and then those at saturation throughput, without busy energy: no real fleet undercuts either. Waves have a
    fixed size, so the answer does not depend on how many processes there are. `near` says where knees may lie: it
    learns more of them, and changes how long this takes.
    """
    together, every = False in question.space.disaggregated, []
    if together and only is None:
        every = list(deployments(question))
    elif together and only is not None:
        every = [d for label, d in by_label(question).items() if label in only]
    if not every and together and only is None:
        raise InputError(
            "space.max_num_seqs", expected="at most space.max_num_batched_tokens, or the engine's default budget",
            found=", ".join(map(str, question.space.max_num_seqs)),
        )  # fmt: skip
    search = Search(question=question, progress=progress, executor=executor, cut=cut, near=near or Nearness())
    complete = True
    try:
        chunks, search.rejected = fitting(every, question)
        search.rejected += [Rejection(label=x, stage="support", reason=why) for x, why in without(question).items()]
        search.take(item for found in executor.map(partial(bound_all, question), chunks) for item in found)
        search.run()
    except Interrupted:
        complete = False
    apart = Found()
    if complete and True in question.space.disaggregated:
        apart = look_apart(question, executor, progress, cut=cut, best_usd_per_h=search.best, only=only)
    return Looked(
        plans=tuple(sorted([*search.plans, *apart.plans], key=rank)),
        rejected=(*search.rejected, *apart.rejected),
        shapes=len(every) + apart.pairs,
        candidates=sum(len(question.space.offers_for(d.accelerator)) for d in every) + apart.candidates,
        simulated=search.simulated + apart.simulated,
        sized=search.sized + apart.sized,
        simulations=search.simulations + apart.simulations,
        complete=complete and apart.complete,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A candidate to be sized: the most that it can serve inside the limits by its bound, its saturation where that is
    known already, both requests per second of one replica, and what it costs at least."""

    candidate: Candidate
    capacity_rps: float
    saturation_rps: float | None
    floor_usd_per_h: float


@dataclass
class Search:
    """The candidates of one space on their way to plans and rejections."""

    question: Question
    progress: Progress
    executor: Executor
    cut: float
    rejected: list[Rejection] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    hopeless: list[Bounded] = field(default_factory=list)
    hopeful: list[Bounded] = field(default_factory=list)
    best: float = inf
    simulated: int = 0
    sized: int = 0
    simulations: int = 0
    passed: int = 0
    total: int = 0
    near: Nearness = field(default_factory=Nearness)
    likely: Likely = field(default_factory=Likely)

    def __post_init__(self) -> None:
        self.floors = Floors(self.question)

    def take(self, found: Iterable[Bounded | Rejection]) -> None:
        """Sorts bounded candidates into those that may keep the limits and those that cannot."""
        for item in found:
            if isinstance(item, Rejection):
                self.rejected.append(item)
            else:
                (self.hopeful if item.hopeless is None else self.hopeless).append(item)

    def run(self) -> None:
        """Simulates what may win, block by block: first those with the cheapest bounds, then those that the knees found
        so far make most promising. Where nothing keeps the limits, also what cannot, for how far it is off."""
        self.progress(0, len(self.hopeful), "bounding")
        floors = [self.floors.usd_per_h(b.candidate, b.capacity_rps) for b in self.hopeful]
        left = sorted(range(len(floors)), key=lambda i: (floors[i], i))
        self.total = len(left)
        while left:
            block, left = left[: BLOCK * WAVE], left[BLOCK * WAVE :]
            kept = [self.hopeful[i] for i in block if not self.too_dear(self.hopeful[i].candidate, floors[i])]
            self.passed += len(block) - len(kept)
            self.evaluate(self.ready(kept))
            if kept and not self.has_rivals:
                left = self.most_promising_first(left, floors)
        if self.plans:
            self.rejected += [b.hopeless for b in self.hopeless if b.hopeless is not None]
        else:
            self.total += len(self.hopeless)
            self.evaluate(self.ready(self.hopeless))
        self.progress(self.total, self.total, "done")

    def most_promising_first(self, left: list[int], floors: list[float]) -> list[int]:
        """Bounded candidates by what they would cost if their knees lay where those of their like did: the sooner good
        plans are known, the more can be left out. Only the order of the search depends on it."""

        def expected(i: int) -> float:
            bounded = self.hopeful[i]
            share = self.likely.share(bounded.candidate)
            if share is None:
                return floors[i]
            return self.floors.usd_per_h(bounded.candidate, share * bounded.capacity_rps) if share > 0 else inf

        return sorted(left, key=lambda i: (expected(i), floors[i], i))

    def ready(self, bounded: list[Bounded]) -> list[Ready]:
        """Candidates as they are to be sized. The floors of jobs and of clients, which no rate of a replica stands for,
        follow from their saturation, which is played first; that of streams is only if they are worth it."""
        workload = self.question.workload
        if not workload.batch and not workload.clients:
            floors = [self.floors.usd_per_h(b.candidate, b.capacity_rps) for b in bounded]
            known: list[float | None] = [None] * len(bounded)
        else:
            candidates = [b.candidate for b in bounded]
            self.simulations += len(candidates)
            played = self.executor.map(partial(saturate_all, self.question), in_batches(candidates))
            saturated = [rps for found in played for rps in found]
            floors = [self.floors.usd_per_h(b.candidate, r) for b, r in zip(bounded, saturated, strict=True)]
            known = list(saturated)
        found = [
            Ready(candidate=b.candidate, capacity_rps=b.capacity_rps, saturation_rps=rps, floor_usd_per_h=floor)
            for b, rps, floor in zip(bounded, known, floors, strict=True)
        ]
        return _in_turns(found)

    def evaluate(self, ranked: list[Ready]) -> None:
        """Sizes candidates in waves; before each, those that cannot win any more are left out. While a wave is on its
        way the next one is chosen, by what all waves before both of them say: so no core waits for a wave to end, and
        what is chosen does not depend on what comes when."""
        with side_by_side(self.executor) as begin:
            waves: deque[tuple[list[Task], Callable[[], Outcomes]]] = deque()
            while ranked or waves:
                while ranked and len(waves) < AT_ONCE:
                    size = WAVE if self.simulated < BLOCK * WAVE else 2 * WAVE  # prices settle: fewer looks at them
                    here, ranked = ranked[:size], ranked[size:]
                    wave = [self.task(r) for r in here if not self.too_dear(r.candidate, r.floor_usd_per_h)]
                    self.passed += len(here) - len(wave)
                    if wave:
                        waves.append((wave, begin(partial(self._evaluated, wave))))
                if waves:
                    wave, outcomes = waves.popleft()
                    self.learn(wave, outcomes())

    def _evaluated(self, wave: list[Task]) -> Outcomes:
        return list(self.executor.map(partial(evaluate_task, self.question), wave))

    def learn(self, wave: list[Task], outcomes: Outcomes) -> None:
        """Notes what came of a wave."""
        cheapest = self.best
        for task, (outcome, played) in zip(wave, outcomes, strict=True):
            self.simulated += 1
            self.simulations += played
            self.near.learn(task.candidate, outcome, task.capacity_rps)
            self.likely.learn(task.candidate, outcome, capacity_rps=task.capacity_rps, tried_rps=task.worth_rps)
            if isinstance(outcome, Rejection):
                self.rejected.append(outcome)
            else:
                self.sized += 1
                found = priced(outcome, self.question, self.rejected)
                self.plans += found
                cheapest = min([cheapest, *(p.usd_per_h for p in found)])
            self.passed += 1
            self.progress(self.passed, self.total, "simulating")
        self.best = cheapest

    def task(self, ready: Ready) -> Task:
        """What is to be found out of a candidate, and what is known to guide it."""
        return Task(
            candidate=ready.candidate,
            capacity_rps=ready.capacity_rps,
            saturation_rps=ready.saturation_rps,
            near_share=self.near.share(ready.candidate),
            worth_rps=self.floors.least_rps(ready.candidate, ready.capacity_rps, self.most_usd_per_h),
        )

    @property
    def has_rivals(self) -> bool:
        """Whether enough was simulated to compare the cheapest plan with."""
        return self.cut < inf and self.sized >= RIVALS

    @property
    def most_usd_per_h(self) -> float:
        """What costs more for certain is left out."""
        return self.best + CENT if self.has_rivals else self.cut * self.best

    def too_dear(self, candidate: Candidate, floor: float) -> bool:
        """Whether a candidate that costs at least `floor` cannot win, which is then its rejection."""
        if floor <= self.most_usd_per_h:
            return False
        over = f"and {RIVALS} nearer rivals were simulated: over" if self.has_rivals else f"over {self.cut:g} x"
        reason = f"at least {show_usd(floor)}/h even at saturation, {over} the cheapest plan"
        label = describe(candidate.deployment)
        self.rejected.append(Rejection(label=label, stage="bound", reason=reason, usd_per_h=floor))
        return True


def _in_turns(ready: list[Ready]) -> list[Ready]:
    """The cheapest by their floors first; but of those that differ in seats, KV cache and cache alone one goes first,
    then a second of each, and so on: the knee of each is sought near that of the one before."""
    seen: Counter[tuple[object, ...]] = Counter()
    turns = []
    for i in sorted(range(len(ready)), key=lambda i: (ready[i].floor_usd_per_h, i)):
        d = ready[i].candidate.deployment
        budget = d.knobs.max_num_batched_tokens
        family = (d.accelerator.name, d.precision.name, d.engine.name, d.parallelism, budget)
        turns.append((seen[family], i))
        seen[family] += 1
    return [ready[i] for _, i in sorted(turns, key=lambda turn: turn[0])]


def plan(question: Question, progress: Progress = quiet, executor: Executor = HERE) -> Answer:
    """The best deployment that meets limits and budget, its frontier, and a reason for everything else.

    Never raises for an infeasible question: `chosen` is None and `nearest` says how close it gets. Raises InputError
    where the space is empty to begin with, or two of its restrictions leave nothing.
    """
    check(question)
    cut = CUT if question.objective is Objective.COST else inf
    looked = look(question, progress, executor, cut=cut)
    plans, beyond = _within_budget(looked.plans, question)
    comparable = tuple(p for p in plans if p.usd_per_h <= cut * plans[0].usd_per_h)
    chosen = plans[0] if plans else None
    rejected = looked.rejected + tuple(_over_budget(p, question) for p in beyond)
    if chosen is not None:
        rejected += tuple(dearer(p, chosen) for p in plans[1:])
    nearest = None
    if chosen is None and looked.complete:
        nearest = _afford(beyond[0], question) if beyond else _nearest(question, looked.rejected, executor)
    return Answer(
        name=question.name,
        chosen=chosen,
        plans=comparable,
        frontier=frontier(comparable),
        rejected=rejected,
        nearest=nearest,
        counts=Counts(
            shapes=looked.shapes,
            candidates=looked.candidates,
            simulated=looked.simulated,
            sized=looked.sized,
            simulations=looked.simulations,
        ),
        complete=looked.complete,
        warnings=question.workload.notes,
    )


def _within_budget(plans: tuple[Plan, ...], question: Question) -> tuple[tuple[Plan, ...], tuple[Plan, ...]]:
    """(plans the budget pays for, plans it does not)."""
    budget = question.space.budget_usd_per_month
    if budget is None:
        return plans, ()
    return (
        tuple(p for p in plans if usd_per_month(p) <= budget),
        tuple(p for p in plans if usd_per_month(p) > budget),
    )


def _over_budget(p: Plan, question: Question) -> Rejection:
    budget = question.space.budget_usd_per_month or 0.0
    reason = f"meets the limits for {show_usd(usd_per_month(p))} a month, budget_usd_per_month is {show_usd(budget)}"
    return Rejection(label=p.label, stage="cost", reason=reason, usd_per_h=p.usd_per_h)


def _afford(cheapest: Plan, question: Question) -> NearestMiss:
    """The cheapest feasible plan, where the budget is all that it misses."""
    needed, budget = ceil(usd_per_month(cheapest)), question.space.budget_usd_per_month or 0.0
    return NearestMiss(plan=cheapest, relaxation=(f"budget_usd_per_month {budget:.10g} -> {needed}",))


def check(question: Question) -> None:
    """Raises InputError for a space with nothing in it, or with two restrictions that leave nothing together."""
    space = question.space
    for name, values in (
        ("accelerators", space.accelerators),
        ("offers", space.offers),
        ("precisions", space.precisions),
        ("engines", space.engines),
        ("tensor_parallel", space.tensor_parallel),
        ("pipeline_parallel", space.pipeline_parallel),
        ("data_parallel", space.data_parallel),
        ("prefix_caching", space.prefix_caching),
        ("speculative_mtp", space.speculative_mtp),
    ):
        if not values:
            raise InputError(f"space.{name}", expected="at least one value that fits the rest", found="none")
    check_together(question)


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
        looked = look(question, executor=executor, only=relaxation.labels, cut=inf)
        if looked.plans:
            best = min(looked.plans, key=partial(_beyond_asked, asked.space))
            return NearestMiss(plan=best, relaxation=changes(asked, just_enough(asked, question, best)))
        rejected = looked.rejected
    return None


def _beyond_asked(space: Space, p: Plan) -> tuple[int, int, float]:
    """Small for the fewest nodes and GPUs beyond those asked for, then for the price."""
    nodes = 0 if space.max_nodes is None else max(0, nodes_taken(p) - space.max_nodes)
    gpus = 0 if space.max_gpus is None else max(0, p.trial.deployment.gpus - space.max_gpus)
    return nodes, gpus, p.usd_per_h


def raise_if_infeasible(answer: Answer) -> None:
    """InfeasibleError with the nearest miss and the cheapest relaxation, where nothing was chosen."""
    if answer.chosen is not None:
        return
    text = f"{answer.name}: no deployment of the space"
    if answer.nearest is not None:
        nearest, changes = answer.nearest.plan, ", ".join(answer.nearest.relaxation)
        within = [step.split()[0] for step in answer.nearest.relaxation if "<=" not in step and ">=" not in step]
        text += " meets the limits" + (f" within {' and '.join(within)}" if within else "")
        if answer.nearest.relaxation and all(step.startswith("budget") for step in answer.nearest.relaxation):
            text += f"; the cheapest that does costs {show_usd(usd_per_month(nearest))} a month"
        text += f"; nearest: relax {changes}, and {nearest.label} does it for {show_usd(nearest.usd_per_h)}/h"
    elif answer.rejected:
        first = min(answer.rejected, key=lambda r: STAGES.index(r.stage))
        runs = any(r.stage not in {"memory", "support"} for r in answer.rejected)
        text += f" {'meets the limits' if runs else 'can run the model'}; for example {first.label}: {first.reason}"
    raise InfeasibleError(text)
