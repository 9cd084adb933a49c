"""What no schedule can better: the most requests a replica can serve, and the least its latencies can be.

From the step times alone, before any simulation. A step of p prefill tokens and n decodes takes token(p + n) +
prefill(p) + decode(n) + what its contexts take; what a workload needs of each is known. Summed over steps a cost is at
least its lower convex hull at the mean (Jensen), and the mean batch is at most what seats, token budget and KV memory
allow. Latencies are those of a request that is alone in every step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import ceil
from types import MappingProxyType

import numpy as np

from trilemma.catalogue.efficiency import EngineEfficiency
from trilemma.latency.columns import Parts, assemble
from trilemma.metrics.limits import Limit, Metric, Miss
from trilemma.planner.candidate import Candidate
from trilemma.planner.question import Workload
from trilemma.workload.prefix import cached_tokens
from trilemma.workload.requests import FloatArray, IntArray, Requests

ROUNDING = 1e-6  # relative: tables hold whole picoseconds
NO_MARGINS: Mapping[Metric, float] = MappingProxyType({})
BIN_WIDTH = 0.01  # relative: percentiles of gaps come from a histogram, whose bins are 0.2% wide


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a workload asks of any schedule, whole tables or means. `prompts` (n,) new prompt tokens, in order of size
    (`class_prompts`: of each class alone);
    `outputs` (n,) steps that yield tokens, in the requests' order; `cached` (n,) prompt tokens an endless cache finds.

    `context_tokens` and `own_context_tokens` are summed over decodes: all of it, and without what requests can share.
    `pairs` is the sum of the simulator's A over prompts.
    """

    requests: int
    prompts: IntArray
    prompt_tokens: float
    decodes: float
    context_tokens: float
    own_context_tokens: float
    pairs: float
    shortest_prompt: int
    lengths: tuple[IntArray, IntArray]
    class_prompts: tuple[IntArray, ...] = ()

    @classmethod
    def of(cls, requests: Requests, *, caching: bool, tokens_per_step: float) -> "Work":
        """The work of a workload, with or without an endless prefix cache; a decode step yields so many tokens."""
        prompt = requests.prompt_tokens.astype(np.float64)
        found = cached_tokens(requests) if caching else None
        cached = np.zeros_like(prompt) if found is None else found.astype(np.float64)
        steps = outputs_in_steps(requests.output_tokens, tokens_per_step)
        decodes = steps.astype(np.float64) - 1
        context = decodes * prompt + decodes * (decodes + 1) / 2
        new = (prompt - cached).astype(np.int64)
        return cls(
            requests=len(requests),
            prompts=np.sort(new),
            prompt_tokens=float(new.sum()),
            decodes=float(decodes.sum()),
            context_tokens=float(context.sum()),
            own_context_tokens=float((context - decodes * cached).sum()),
            pairs=float((prompt * (prompt + 1) - cached * (cached + 1)).sum()),
            shortest_prompt=int(requests.prompt_tokens.min()),
            lengths=(new, steps),
            class_prompts=_by_class(new, requests.request_class),
        )

    def window_tokens(self, window: int) -> float:
        """min(context + 1, window) summed over decodes, from below: that of contexts no longer than their prompts."""
        prompt, steps = self.lengths
        return float((np.minimum(prompt + 1, window) * (steps - 1)).sum()) if window else 0.0


def _by_class(prompts: IntArray, request_class: IntArray | None) -> tuple[IntArray, ...]:
    """(n,), (n,) -> the prompts of each class in order of size; none without classes."""
    if request_class is None:
        return ()
    return tuple(np.sort(prompts[request_class == index]) for index in range(int(request_class.max()) + 1))


def outputs_in_steps(output_tokens: IntArray, tokens_per_step: float) -> IntArray:
    """(n,) steps that yield a request's tokens where each yields so many on average, at least one."""
    if tokens_per_step == 1:
        return output_tokens
    return np.maximum(1, np.rint(output_tokens / tokens_per_step)).astype(np.int64)


class Hull:
    """The lower convex hull of a cost over counts from 1 on, piecewise linear between the points of a grid."""

    def __init__(self, counts: FloatArray, seconds: FloatArray, most: float) -> None:
        inside = counts < most
        x = np.append(counts[inside], float(most))
        y = np.append(seconds[inside], np.interp(most, counts, seconds))
        y = np.minimum.accumulate(y[::-1])[::-1]  # a larger count is never taken to be cheaper
        held_x: list[float] = []
        held_y: list[float] = []
        for at, cost in zip(x.tolist(), y.tolist(), strict=True):
            # The last point goes where it lies on or above the line from the one before it to the new one; written
            # out, since a plan draws thousands of hulls.
            while len(held_x) > 1 and (held_y[-1] - held_y[-2]) * (at - held_x[-2]) >= (cost - held_y[-2]) * (
                held_x[-1] - held_x[-2]
            ):
                del held_x[-1], held_y[-1]
            held_x.append(at)
            held_y.append(cost)
        self.counts, self.seconds = np.array(held_x), np.array(held_y)
        self._least = np.minimum.accumulate(self.seconds / self.counts)

    def each(self, count: float) -> float:
        """The least cost per unit in steps of at most `count` units on average."""
        at = min(max(count, 1.0), float(self.counts[-1]))
        before = int(np.searchsorted(self.counts, at, side="right")) - 1
        return min(float(self._least[before]), float(np.interp(at, self.counts, self.seconds)) / at)


def hull_of(counts: FloatArray, seconds: FloatArray, most: int) -> Hull:
    """The hull of a cost; of deployments that differ in seats alone, one after another, the same one."""
    return _hull_of(counts.tobytes(), seconds.tobytes(), most)


@lru_cache(maxsize=128)
def _hull_of(counts: bytes, seconds: bytes, most: int) -> Hull:
    return Hull(np.frombuffer(counts), np.frombuffer(seconds), most)


class Bounds:
    """What a candidate can do at best on a workload, whose `work` is given."""

    def __init__(self, candidate: Candidate, work: Work, *, kv_tokens: float) -> None:
        """`kv_tokens` is what the KV memory of one attention-DP rank holds."""
        self.candidate, self.work, self.kv_tokens = candidate, work, kv_tokens
        steps, knobs = candidate.steps, candidate.deployment.rank_knobs
        self._engine: EngineEfficiency = steps.efficiency.engine
        self._columns, self._stretch = steps.columns, steps.stretch
        self._parts: Parts = assemble(self._columns, self._engine)
        self._budget, self._seats = knobs.max_num_batched_tokens, knobs.max_num_seqs

    def capacity_rps(self, limits: tuple[Limit, ...] = (), margins: Mapping[Metric, float] = NO_MARGINS) -> float:
        """The most requests a replica can serve per second, all its attention-DP ranks together; inside `limits` where
        they are given: a percentile of gaps bounds how many decodes so large a share of all steps can hold."""
        work, parts, columns = self.work, self._parts, self._columns
        tokens = work.prompt_tokens + work.decodes
        steps = max(tokens / self._budget, work.decodes / self._seats, work.own_context_tokens / self.kv_tokens)
        for limit in limits:
            if limit.metric is Metric.ITL and limit.quantile is not None:
                most_s = limit.bound / margins.get(limit.metric, 1.0) / (1 - BIN_WIDTH)
                steps = max(steps, limit.quantile * work.decodes / self._decodes_within(most_s))
        token = hull_of(columns.tokens, parts.token_s, self._budget)
        seconds = tokens * token.each(tokens / steps)
        seconds += work.prompt_tokens * _least_each(columns.tokens, parts.prefill_s, self._budget)
        seconds += (work.decodes + work.requests) * _least_each(columns.sequences, parts.sequence_s, self._seats)
        seconds += work.decodes * _least_each(columns.sequences, parts.decode_s, self._seats)
        seconds += parts.context_s * work.context_tokens + parts.pair_s * work.pairs
        seconds += parts.window_s * work.window_tokens(columns.window_tokens)
        seconds = max(self._stretch * seconds, steps * self.candidate.steps.floor_s)
        return (1 + ROUNDING) * work.requests * self.candidate.deployment.parallelism.data / seconds

    def _decodes_within(self, most_s: float) -> float:
        """The most decodes of a step that takes at most so long, at least one."""
        parts, columns = self._parts, self._columns
        counts = columns.sequences[columns.sequences <= self._seats]
        token_s = np.interp(counts, columns.tokens, np.minimum.accumulate(parts.token_s[::-1])[::-1])
        decode_s = np.interp(counts, columns.sequences, parts.decode_s) + float(parts.sequence_s.min())
        context_s = parts.context_s * (self.work.shortest_prompt + 1) * counts
        step_s = np.minimum.accumulate((self._stretch * (token_s + decode_s + context_s))[::-1])[::-1]
        inside = int(np.searchsorted(step_s, most_s, side="right"))
        # Between two points of the grid the time is linear: the next point is an upper bound.
        return float(counts[min(inside, counts.size - 1)]) if inside else 1.0

    @cached_property
    def _prefill(self) -> Hull:
        return hull_of(self._columns.tokens, self._parts.token_s + self._parts.prefill_s, self._budget)

    def decode_s(self) -> float:
        """The least time between two steps of a decoding request."""
        parts = self._parts
        least = float(parts.token_s.min() + parts.decode_s.min() + parts.sequence_s.min())
        alone = self._stretch * (least + parts.context_s * (self.work.shortest_prompt + 1))
        return max(alone, self.candidate.steps.floor_s)

    def prefill_s(self, prompt_tokens: float) -> float:
        """The least time to a first token for a prompt of so many new tokens; never less for a longer one."""
        parts = self._parts
        pairs_s = parts.pair_s * prompt_tokens * (prompt_tokens + 1)
        each_s = self._prefill.each(min(prompt_tokens, self._budget))
        steps_s = prompt_tokens * each_s + float(parts.sequence_s.min())
        floor_s = ceil(prompt_tokens / self._budget) * self.candidate.steps.floor_s
        return max(self._stretch * (steps_s + pairs_s), floor_s) + self._engine.request_s

    def least(self, limit: Limit) -> float | None:
        """What the bounded number is at least, seconds; None where nothing is known."""
        prompts = self.work.prompts if limit.of is None else self.work.class_prompts[limit.of.index]
        q = limit.quantile
        if limit.metric in {Metric.TTFT, Metric.E2E}:
            return self.prefill_s(float(prompts[0] if q is None else prompts[int(q * (prompts.size - 1))]))
        if self.work.decodes <= 0 or self._columns.drafts:
            return None
        if limit.metric is Metric.ITL:
            return (1 - BIN_WIDTH) * self.decode_s()
        return self.decode_s() if limit.metric is Metric.TPOT else None

    def misses(
        self, workload: Workload, limits: tuple[Limit, ...], margins: Mapping[Metric, float]
    ) -> tuple[Miss, ...]:
        """The latency limits that no load is light enough to keep, at the asked confidence."""
        if workload.batch:  # a job says at once how long its longest request takes alone
            return ()
        found = []
        for limit in limits:
            least_s = self.least(limit)
            got = None if least_s is None else (1 - ROUNDING) * least_s * margins.get(limit.metric, 1.0)
            if got is not None and not limit.holds(got):
                found.append(Miss(limit=limit, got=got, excess=limit.excess(got)))
        return tuple(found)


def _least_each(counts: FloatArray, seconds: FloatArray, most: int) -> float:
    """The least seconds per unit over steps of 1 to `most` units."""
    inside = counts <= most
    at_most = float(np.interp(most, counts, seconds)) / most
    return min(float((seconds[inside] / counts[inside]).min()), at_most)
