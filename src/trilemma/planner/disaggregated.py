"""Prefill and decode on pools of their own: the pairs of a space that may win, sized, simulated and priced.

A space has thousands of pairs and each of its pools is cheap to look at alone (disaggregated_stages). The price of a
pair is that of its pools and of its people, so that

- a pair costs at least its pools' fewest replicas without busy energy (disaggregated_price.PoolFloors). A prefill
  pool's fewest are those on which its prompts alone, without any back-pressure, keep the limits on the first token:
  what comes after the prompt can only make it later. A decode pool's are bounded by its step times and its saturation.
  No pair that is sized undercuts this, so that what it puts above the cheapest plan cannot be chosen.
- of two prefill pools for the same decode pools the one is left out that costs no less, in machines and in busy watts,
  and whose first tokens come no sooner, by every statistic a limit bounds (`undominated`): beside any decode pool the
  other one does as well.

Pairs are sized in the order of that least price, in waves: first those of the pools that look best by their bounds
alone, then all that may still be cheaper. A few are for the comparison even where they cannot be the cheapest.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import nsmallest
from itertools import product
from math import inf

from trilemma.deployment.spec import Deployment
from trilemma.planner.answer import APART, Plan, Rejection, Trial, describe
from trilemma.planner.disaggregated_price import PoolFloors, priced_pools
from trilemma.planner.disaggregated_size import Pair, size_pair
from trilemma.planner.disaggregated_stages import (
    OF_GAPS,
    Group,
    Stage,
    bound_stages,
    find_stage,
    group_of,
    pool_deployments,
    why_none,
)
from trilemma.planner.question import Question
from trilemma.planner.screening import fitting
from trilemma.planner.trial import MOST_REPLICAS
from trilemma.planner.work import Executor, Interrupted, Progress
from trilemma.units import show_usd

WAVE = 8  # pairs sized before the least price is looked at again
FIRST = 64  # pairs whose pools are found first
RIVALS = 16  # pairs sized for the comparison; beyond, only those that might still be the cheapest
MOST_PAIRS = 400  # sized where every plan counts, not the cheapest alone
SHOWN = 200  # pairs that are too dear and told one by one
CENT = 0.01  # $/h
WIDER = 1e6  # a seat more counts for more than any token budget
WHAT = "prefill and decode apart"
Pools = Sequence[tuple[list[Stage], list[Stage]]]  # of each group (prefill pools, decode pools)
FormOf = Callable[[Deployment], tuple[object, float]]  # what of a pool matters, and how much room it has


@dataclass
class Found:
    """What looking at pairs gave; not `complete` where it was interrupted."""

    plans: list[Plan] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    pairs: int = 0
    candidates: int = 0
    simulated: int = 0
    sized: int = 0
    simulations: int = 0
    complete: bool = True


def look_apart(
    question: Question,
    executor: Executor,
    progress: Progress,
    *,
    cut: float,
    best_usd_per_h: float = inf,
    only: frozenset[str] | None = None,
) -> Found:
    """The disaggregated plans of a space, or of the pairs whose description is in `only`.

    `best_usd_per_h` is the cheapest plan known; pairs over `cut` times the cheapest are left out, and those that cannot
    be the cheapest once RIVALS are sized.
    """
    search = Search(question=question, executor=executor, progress=progress, cut=cut, best=best_usd_per_h, only=only)
    if reason := why_none(question):
        search.found.rejected.append(Rejection(label=WHAT, stage="support", reason=reason))
        return search.found
    if only is not None and not any(APART in label for label in only):
        return search.found
    try:
        search.run()
    except Interrupted:
        search.found.complete = False
    return search.found


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A pair and the least it costs."""

    floor_usd_per_h: float
    label: str
    prefill: Stage
    decode: Stage


@dataclass
class Search:
    """The pairs of one space on their way to plans and rejections."""

    question: Question
    executor: Executor
    progress: Progress
    cut: float
    best: float
    only: frozenset[str] | None
    found: Found = field(default_factory=Found)
    near: dict[tuple[str, Group], int] = field(default_factory=dict)
    tried: set[str] = field(default_factory=set)
    pools_found: dict[int, Stage] = field(default_factory=dict)  # by the id of the bounded one, which `bounded` keeps
    dead: set[int] = field(default_factory=set)  # decode candidates no number of which keeps a limit on gaps

    def __post_init__(self) -> None:
        self.floors = PoolFloors(self.question)

    def run(self) -> None:
        """Bounds pools; finds those of the most promising pairs and sizes these; then what may still be cheaper."""
        pools: Pools = self.bounded()
        self.counted(pools)
        for is_last in (False, True):
            wanted: Pools = [self.within_reach(prefills, decodes) for prefills, decodes in pools]
            if not is_last:
                wanted = self.promising(wanted)
            self.find(stage for prefills, decodes in wanted for stage in (*prefills, *decodes))
            self.size(sorted(self.pairs(wanted), key=lambda r: (r.floor_usd_per_h, r.label)), is_last=is_last)

    def promising(self, pools: Pools) -> Pools:
        """Of each group the pools that the FIRST pairs with the least price by their bounds are made of."""
        ranked = [
            (self.floors.pair(prefill, decode), i, id(prefill), id(decode))
            for i, (prefills, decodes) in enumerate(pools)
            for prefill in prefills
            for decode in decodes
        ]
        ids = {pool for *_, one, other in nsmallest(FIRST, ranked) for pool in (one, other)}
        return [
            ([s for s in prefills if id(s) in ids], [s for s in decodes if id(s) in ids]) for prefills, decodes in pools
        ]

    def find(self, stages: Iterable[Stage]) -> None:
        """Finds the fewest replicas of pools, each once."""
        new = [stage for stage in stages if id(stage) not in self.pools_found]
        counts = self.executor.map(partial(find_stage, self.question), new)
        for stage, (count, statistics) in zip(new, counts, strict=True):
            self.pools_found[id(stage)] = replace(stage, fewest=count, statistics=statistics)
        self.found.simulations += len(new)

    def bounded(self) -> Pools:
        """(prefill pools, decode pools) of each group that can be paired."""
        wanted = pool_deployments(self.question)
        if self.only is not None:
            heads = {part for label in self.only for part in _halves(label)}
            wanted = tuple(d for d in wanted if heads & {describe(d), _tail(d)})
        parts, out = fitting(wanted, self.question)
        if self.only is None and False not in self.question.space.disaggregated:
            self.found.rejected += out
        groups: dict[Group, tuple[list[Stage], list[Stage]]] = defaultdict(lambda: ([], []))
        for stages in self.executor.map(partial(bound_stages, self.question), parts):
            for stage in stages:
                if not isinstance(stage, Rejection):
                    groups[stage.group][stage.role == "decode"].append(stage)
                elif self.only is None or stage.label in self.only:
                    self.found.rejected.append(stage)
        found = list(groups.values())
        if self.only is None:
            of_decode = _of_decode(self.question)
            found = [(forms(prefills, _of_prefill), forms(decodes, of_decode)) for prefills, decodes in found]
        return [(_behind(prefills, decodes), decodes) for prefills, decodes in found if decodes]

    def counted(self, pools: Pools) -> None:
        """How many pairs there are, and how many at their offers."""
        offers = {a.name: len(self.question.space.offers_for(a)) for a in self.question.space.accelerators}
        for prefills, decodes in pools:
            self.found.pairs += len(prefills) * len(decodes)
            self.found.candidates += len(decodes) * sum(offers[s.deployment.accelerator.name] for s in prefills)

    @property
    def most_usd_per_h(self) -> float:
        """What costs more for certain is left out."""
        enough = self.cut < inf and self.found.sized >= RIVALS
        return self.best + CENT if enough else self.cut * self.best

    def within_reach(self, prefills: list[Stage], decodes: list[Stage]) -> tuple[list[Stage], list[Stage]]:
        """The pools that are part of a pair that may still cost no more than what is left out."""
        if not prefills or not decodes:
            return [], []
        cheapest = [min(map(self.floors.machines, stages)) for stages in (prefills, decodes)]
        people = min(self.floors.people(s.deployment) for s in prefills)
        most = self.most_usd_per_h - people
        return (
            [s for s in prefills if self.floors.machines(s) + cheapest[1] <= most],
            [s for s in decodes if self.floors.machines(s) + cheapest[0] <= most],
        )

    def pairs(self, pools: Pools) -> Iterator[Ranked]:
        """Every pair of found pools that was asked for and not sized yet."""
        for group in pools:
            prefills, decodes = (
                [s for one in stages if (s := self.pools_found[id(one)]).fewest <= MOST_REPLICAS] for stages in group
            )
            best = prefills if self.only is not None else undominated(prefills, self.floors)
            for prefill, decode in product(best, decodes):
                label = label_of(prefill, decode)
                if label not in self.tried and (self.only is None or label in self.only):
                    floor = self.floors.pair(prefill, decode)
                    yield Ranked(floor_usd_per_h=floor, label=label, prefill=prefill, decode=decode)

    def size(self, ranked: list[Ranked], *, is_last: bool) -> None:
        """Sizes pairs in waves, the least price first; what cannot win any more is left out."""
        at = 0
        most_pairs = MOST_PAIRS if self.only is None else len(ranked)
        while at < len(ranked) and self.found.simulated < most_pairs:
            wave: list[Ranked] = []
            while at < len(ranked) and len(wave) < WAVE and ranked[at].floor_usd_per_h <= self.most_usd_per_h:
                if id(ranked[at].decode.candidate) not in self.dead:
                    wave.append(ranked[at])
                at += 1
            if not wave:
                break
            self.progress(at, len(ranked), WHAT)
            outcomes = self.executor.map(partial(size_pair, self.question), [self.task(r) for r in wave])
            for r, (outcome, played) in zip(wave, outcomes, strict=True):
                self.found.simulated += 1
                self.found.simulations += played
                self.tried.add(r.label)
                self.take(r, outcome)
        if is_last:
            self.left_out(ranked[at:])

    def task(self, r: Ranked) -> Pair:
        """A pair with where its search starts."""
        return Pair(
            prefill=r.prefill.candidate,
            decode=r.decode.candidate,
            fewest_prefill=r.prefill.fewest,
            fewest_decode=r.decode.fewest,
            near_decode=self.near.get((_tail(r.decode.deployment), r.decode.group)),
        )

    def take(self, r: Ranked, outcome: tuple[Trial, ...] | Rejection) -> None:
        """Prices what was sized, or keeps why it is out."""
        if isinstance(outcome, Rejection):
            self.found.rejected.append(outcome)
            if outcome.misses and all(m.limit.metric in OF_GAPS for m in outcome.misses):
                self.dead.add(id(r.decode.candidate))
            return
        self.found.sized += 1
        for trial in outcome:
            plans = priced_pools(trial, self.question)
            if not plans:
                reason = "no offer of one of its accelerators in the space"
                self.found.rejected.append(Rejection(label=describe(trial.deployment), stage="cost", reason=reason))
            self.found.plans += plans
            self.best = min([self.best, *(p.usd_per_h for p in plans)])
            decode = trial.deployment.pools[-1]
            self.near[_tail(decode), r.decode.group] = decode.replicas - self.question.sizing.spare_replicas

    def left_out(self, rest: Sequence[Ranked]) -> None:
        """The pairs that cannot win, the nearest of them one by one."""
        for r in rest[:SHOWN]:
            floor = r.floor_usd_per_h
            reason = f"at least {show_usd(floor)}/h on the fewest replicas of each pool, the cheapest plan costs less"
            self.found.rejected.append(Rejection(label=r.label, stage="bound", reason=reason, usd_per_h=floor))


def pair_deployments(question: Question) -> Iterator[Deployment]:
    """Every pair of the space as a deployment, whether or not its pools run and fit."""
    if why_none(question):
        return
    every = pool_deployments(question)
    prefills, decodes = (_each_form(every, of) for of in (_of_prefill, _of_decode(question)))
    for prefill in prefills:
        for decode in decodes:
            if group_of(prefill) == group_of(decode):
                yield replace(prefill, decode=decode)


def undominated(prefills: Sequence[Stage], floors: PoolFloors) -> list[Stage]:
    """The prefill pools that no other beats in the price of machines, in every bounded statistic of the first token and
    in busy watts; of equals the first."""
    kept: list[Stage] = []
    points: list[tuple[float, ...]] = []
    for stage in sorted(prefills, key=lambda s: (floors.machines(s), s.statistics, describe(s.deployment))):
        point = (floors.machines(stage), *stage.statistics)
        if not any(all(a <= b for a, b in zip(other, point, strict=True)) for other in points):
            kept.append(stage)
            points.append(point)
    return kept


def forms(stages: Iterable[Stage], form_of: FormOf) -> list[Stage]:
    """Of pools that differ in what does not matter for their half of the work, the one with the most room."""
    by_deployment = {id(stage.deployment): stage for stage in stages}
    kept = _each_form([stage.deployment for stage in by_deployment.values()], form_of)
    return [by_deployment[id(d)] for d in kept]


def _each_form(every: Iterable[Deployment], form_of: FormOf) -> list[Deployment]:
    best: dict[object, tuple[float, Deployment]] = {}
    for deployment in every:
        form, room = form_of(deployment)
        if form not in best or room > best[form][0]:
            best[form] = (room, deployment)
    return [deployment for _, deployment in best.values()]


def _of_prefill(d: Deployment) -> tuple[object, float]:
    """A prefill pool's requests leave their seats after one token: the most seats of each token budget."""
    form = (group_of(d), d.accelerator.name, d.parallelism, d.knobs.max_num_batched_tokens, d.knobs.prefix_caching)
    return form, d.knobs.max_num_seqs


def _of_decode(question: Question) -> FormOf:
    """A decode pool's steps are as wide as its seats: those asked for, else the most that the engine has for any of the
    token budgets; and the least token budget, which leaves the most memory. Its prefix cache would stay empty."""

    def form_of(d: Deployment) -> tuple[object, float]:
        seats, tokens = d.knobs.max_num_seqs, d.knobs.max_num_batched_tokens
        asked = seats if question.space.max_num_seqs else 0
        room = (0 if asked else seats * WIDER) - tokens - (inf if d.knobs.prefix_caching else 0)
        return (group_of(d), d.accelerator.name, d.parallelism, asked), room

    return form_of


def _behind(prefills: Iterable[Stage], decodes: Sequence[Stage]) -> list[Stage]:
    """The prefill pools, knowing what any decode pool takes at least before the first token."""
    after_s = min(stage.after_s for stage in decodes)
    return [replace(stage, after_s=after_s) for stage in prefills]


def label_of(prefill: Stage, decode: Stage) -> str:
    """A pair in one line."""
    return describe(replace(prefill.deployment, decode=decode.deployment))


def _tail(deployment: Deployment) -> str:
    """The decode half of a description."""
    return describe(replace(deployment, decode=deployment)).partition(APART)[2]


def _halves(label: str) -> tuple[str, ...]:
    before, apart, after = label.partition(APART)
    return (before, after) if apart else ()
