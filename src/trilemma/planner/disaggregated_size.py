"""Two pools sized for a stream of requests: whole replicas of each, simulated together on the whole workload.

Both have to keep the limits at the load with its headroom, spare replicas left out; then the fleet with its spare
replicas, one set for each pool, is simulated at the load itself, as aggregated fleets are.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

from trilemma.catalogue.figure import weakest
from trilemma.latency.step import StepTerms
from trilemma.metrics.activity import Capacity
from trilemma.metrics.limits import Metric, Miss
from trilemma.metrics.summary import judge, summarise
from trilemma.planner.answer import Fleet, Rejection, Trial, describe
from trilemma.planner.batch import GROWTHS
from trilemma.planner.candidate import Candidate
from trilemma.planner.candidates import nodes_of
from trilemma.planner.disaggregated_bench import ASSUMPTION, PoolsBench, decode_saturation, prefill_saturation
from trilemma.planner.disaggregated_stages import OF_GAPS, at_least, fewest, most_of
from trilemma.planner.question import Question
from trilemma.planner.schedules import stream_schedules
from trilemma.planner.trial import MOST_REPLICAS, NEARLY, activity_of, step_terms
from trilemma.sim.disaggregated import DisaggregatedRun
from trilemma.sim.predict import approximations

PATIENCE = 3  # ever larger prefill pools that save no decode replica, before the next is not tried
FEW_OF_PLENTY = 3  # times the bound: nearly always enough decode replicas for the limits on gaps
MORE_PREFILL = 3  # times the bound: further prefill replicas find next to no queue left to take away
COARSE = 10  # a large prefill pool grows by a tenth of its size
FULL_KV, FULL_SEATS = 0.98, 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A prefill and a decode candidate to be sized, with the fewest replicas of each that a bound leaves."""

    prefill: Candidate
    decode: Candidate
    fewest_prefill: int = 1
    fewest_decode: int = 1
    near_decode: int | None = None  # where the search starts, which changes nothing but how long it takes
    content: ClassVar[tuple[str, ...]] = ("prefill", "decode", "fewest_prefill", "fewest_decode")

    @property
    def label(self) -> str:
        """The pair in one line."""
        return describe(replace(self.prefill.deployment, decode=self.decode.deployment))


def size_pair(question: Question, pair: Pair) -> tuple[tuple[Trial, ...] | Rejection, int]:
    """The fleets of a pair worth pricing, which differ in how many replicas are in which pool, or why there is none;
    and the number of simulations that took."""
    try:
        sizing = Sizing(question, pair)
        return sizing.found(), sizing.bench.simulations
    finally:
        pair.prefill.forget()
        pair.decode.forget()


@dataclass
class Sizing:
    """One pair on its way to a fleet; keeps what was simulated."""

    question: Question
    pair: Pair
    bench: PoolsBench = field(init=False)
    seen: dict[tuple[int, int], tuple[Miss, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bench = PoolsBench(self.question, self.pair.prefill, self.pair.decode)
        self.saturations = (
            prefill_saturation(self.question, self.pair.prefill),
            decode_saturation(self.question, self.pair.decode),
        )

    def found(self) -> tuple[Trial, ...] | Rejection:
        """The trials, or why there is none."""
        needed = self.question.asked_rps
        least = [at_least(needed, rps) for rps in self.saturations]
        prefill = max(least[0], self.pair.fewest_prefill)
        decode = max(least[1], self.pair.fewest_decode)
        if max(prefill, decode) > MOST_REPLICAS:
            pool = "prefill" if prefill > MOST_REPLICAS else "decode"
            return self._out("limits", f"no number of {pool} replicas keeps the limits, whatever the other pool does")
        if rejection := self._too_many(prefill, decode):
            return rejection
        options = self._options(prefill, decode)
        if not options:
            misses = min((m for m in self.seen.values() if m), key=lambda m: max(x.excess for x in m))
            most = [max(sizes[i] for sizes in self.seen) for i in (0, 1)]
            return self._missed(misses, f"even on {most[0]} prefill and {most[1]} decode replicas")
        spare = self.question.sizing.spare_replicas
        outcomes = [self._fleet(p, d, spare) for p, d in options]
        trials = tuple(x for x in outcomes if isinstance(x, Trial))
        return trials or next(x for x in outcomes if isinstance(x, Rejection))

    def _options(self, prefill: int, decode: int) -> list[tuple[int, int]]:
        """(prefill, decode) replicas of which none is more of both than another: at least so many of each.

        From the smallest prefill pool that keeps the limits beside a decode pool of plenty, up: beside each the
        smallest decode pool. A larger prefill pool is tried as long as fewer decode replicas fail by what a prompt's
        way is part of (prompts that come sooner leave the decode pool more time) and it makes a difference.
        """
        plenty, smallest = self._smallest_prefill(prefill, decode)
        if smallest is None:
            return []
        options: list[tuple[int, int]] = []
        at, ceiling, patience = smallest, plenty, PATIENCE
        while patience and ceiling >= decode:
            found = fewest(partial(self._holds, at), decode, ceiling, self.pair.near_decode)
            if found is not None:
                options.append((at, found))
                ceiling = found - 1
            patience = PATIENCE if found is not None else patience - 1
            missed = self.seen.get((at, ceiling), ())
            if missed and all(m.limit.metric in OF_GAPS for m in missed):
                break
            at += max(1, smallest // COARSE)
        return options

    def _smallest_prefill(self, prefill: int, decode: int) -> tuple[int, int | None]:
        """(decode replicas of plenty, the fewest prefill replicas that keep the limits beside them; None if none do):
        as few of plenty as do not miss a limit on gaps."""
        few, most, widest = FEW_OF_PLENTY * (decode + 1), most_of(decode), MORE_PREFILL * (prefill + 1)
        if all(m.limit.metric not in OF_GAPS for m in self.misses(prefill, few)):
            smallest = fewest(partial(self._holds, decode=few), prefill, widest)
            if smallest is not None or all(m.limit.metric is Metric.TTFT for m in self.misses(widest, few)):
                return few, smallest
        return most, fewest(partial(self._holds, decode=most), prefill, widest)

    def _holds(self, prefill: int, decode: int) -> bool:
        return not self.misses(prefill, decode)

    def misses(self, prefill: int, decode: int) -> tuple[Miss, ...]:
        """The limits that so many replicas do not keep at the load with its headroom."""
        key = (prefill, decode)
        if key not in self.seen:
            requests = self.bench.streams.at_sizing_rate.at_rate(1 + self.question.sizing.headroom)
            self.seen[key] = self.bench.misses(self.bench.play(requests, prefill, decode))
        return self.seen[key]

    def _fleet(self, prefill: int, decode: int, spare: int) -> Trial | Rejection:
        """The fleet with its spare replicas on the whole workload; grown where it misses a limit there."""
        requests = self.bench.streams.at_sizing_rate
        serving, held = [prefill, decode], [prefill + spare, decode + spare]
        for _ in range(GROWTHS):
            if rejection := self._too_many(*serving):
                return rejection
            run = self.bench.play(requests, *held)
            misses = self.bench.misses(run)
            if not misses:
                return self._trial(run, serving, held)
            pool = 0 if misses[0].limit.metric is Metric.TTFT else 1
            serving[pool] += 1
            held[pool] += 1
        return self._missed(misses, f"on the whole workload, even on {held[0] - 1} prefill and {held[1]} replicas")

    def _too_many(self, prefill: int, decode: int) -> Rejection | None:
        """Why a fleet that serves on so many replicas, spare ones apart, exceeds max_gpus or max_nodes."""
        spare, space = self.question.sizing.spare_replicas, self.question.space
        held = ((self.pair.prefill.deployment, prefill + spare), (self.pair.decode.deployment, decode + spare))
        gpus = sum(d.parallelism.gpus * count for d, count in held)
        if space.max_gpus is not None and gpus > space.max_gpus:
            reason = f"needs {gpus} GPUs for the load, max_gpus is {space.max_gpus}"
            return replace(self._out("size", reason), gpus_needed=gpus)
        nodes = sum(nodes_of(d.accelerator, count, d.parallelism.gpus) for d, count in held)
        if space.max_nodes is not None and nodes > space.max_nodes:
            reason = f"needs {nodes} nodes for the load, max_nodes is {space.max_nodes}"
            return replace(self._out("size", reason), nodes_needed=nodes)
        return None

    def _out(self, stage: str, reason: str) -> Rejection:
        return Rejection(label=self.pair.label, stage=stage, reason=reason)

    def _missed(self, misses: tuple[Miss, ...], when: str) -> Rejection:
        return replace(self._out("limits", f"{misses[0].text} {when}"), misses=misses)

    def _trial(self, run: DisaggregatedRun, serving: list[int], held: list[int]) -> Trial:
        """The fleet with what it did, pool by pool."""
        bench, question, load = self.bench, self.question, self.question.workload.sizing_rps
        runs = bench.pool_runs(run)
        decode_terms = step_terms(self.pair.decode, runs[1])[0]
        prefill_terms = step_terms(self.pair.prefill, runs[0])[1]
        quiet = self._at_quietest(held)
        fleets = []
        for i, candidate in enumerate((self.pair.prefill, self.pair.decode)):
            knee = min(self.saturations[i], question.asked_rps / serving[i])
            schedules = stream_schedules(question, knee)
            activity = activity_of(
                bench.benches[i],
                runs[i],
                offered_rps=load,
                replicas=held[i],
                others=() if quiet is None else (bench.pool_runs(quiet)[i],),
                terms=(decode_terms, prefill_terms),
            )
            fleets.append(
                Fleet(
                    deployment=replace(candidate.deployment, replicas=held[i]),
                    capacity=Capacity(saturation_rps=self.saturations[i], knee_rps=knee),
                    activity=activity,
                    schedule=schedules[0],
                    scaled_schedule=schedules[1],
                )
            )
        both = replace(fleets[0].deployment, decode=fleets[1].deployment)
        summary = summarise(run.timings, question.limits, classes=question.workload.class_names)
        sources = (self.pair.prefill.steps.source, self.pair.decode.steps.source)
        said = (*approximations(self.pair.prefill.steps), *approximations(self.pair.decode.steps), ASSUMPTION)
        return Trial(
            fleet=replace(fleets[0], deployment=both, decode=fleets[1]),
            memory=self.pair.prefill.memory,
            decode_memory=self.pair.decode.memory,
            summary=summary,
            misses=judge(summary.bounded(question.limits), question.limits, margins=bench.margins),
            margins=bench.margins,
            decode_terms=decode_terms,
            prefill_terms=prefill_terms,
            binds=self._binds(serving, run, decode_terms, prefill_terms),
            errors={"ttft": self.pair.prefill.errors["ttft"], "tpot": self.pair.decode.errors["tpot"]},
            peak_kv_share=run.peak_kv_share,
            source=weakest(*sources),
            notes=tuple(dict.fromkeys(said)),
        )

    def _at_quietest(self, held: list[int]) -> DisaggregatedRun | None:
        """The fleet at the load of the quietest hour; None where hours are alike or nobody comes."""
        workload = self.question.workload
        hourly = workload.hourly_rps[workload.hourly_rps > 0]
        if not hourly.size or hourly.min() > NEARLY * workload.sizing_rps:
            return None
        quiet = self.bench.streams.at_sizing_rate.at_rate(float(hourly.min()) / workload.sizing_rps)
        return self.bench.play(quiet, *held, back_pressure=False)

    def _binds(
        self, serving: list[int], run: DisaggregatedRun, decode_terms: StepTerms, prefill_terms: StepTerms
    ) -> str:
        """What keeps each pool from being one replica smaller, in words."""
        prefill, decode = serving
        knobs = self.pair.decode.deployment.knobs
        pool = run.decode_pool
        if pool.preemptions or pool.peak_kv_share > FULL_KV:
            resource = f"KV memory ({100 * pool.peak_kv_share:.0f}% full)"
        elif pool.mean_running >= FULL_SEATS * knobs.max_num_seqs * self.pair.decode.deployment.parallelism.data:
            resource = f"scheduler seats (max_num_seqs {knobs.max_num_seqs})"
        else:
            resource = decode_terms.bottleneck
        said = []
        for name, fewer, i, waits in (
            ("prefill", (prefill - 1, decode), 0, f"prefills wait for {prefill_terms.bottleneck}"),
            ("decode", (prefill, decode - 1), 1, f"decodes wait for {resource}"),
        ):
            share = self.question.asked_rps / serving[i] / self.saturations[i]
            misses = self.misses(*fewer) if min(fewer) >= 1 else ()
            if misses:
                reason = f"{misses[0].limit.text}, at {100 * share:.0f}% of saturation"
            elif serving[i] > 1:
                reason = f"saturation, {100 * share:.0f}% of it used"
            else:
                reason = f"one replica is enough, {100 * share:.0f}% of its saturation used"
            said.append(f"{name} pool: {reason}; {waits}")
        return "; ".join(said)
