"""The pools of disaggregated candidates, each looked at alone: who may be a pool, and the fewest replicas it takes.

A prefill pool's fewest replicas are simulated: without back-pressure what it does depends on nobody behind it, and
nothing behind it can make a prompt's KV be there sooner. Those of a decode pool are bounded from its step times: every
gap between two tokens of a request is one decode step or more, whatever the order in which prompts come.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import ceil, inf
from typing import ClassVar

from trilemma.deployment.memory import kv_footprint
from trilemma.deployment.spec import Deployment, Parallelism
from trilemma.metrics.limits import Limit, Metric, Miss
from trilemma.metrics.summary import judge, verdict
from trilemma.planner.answer import Rejection, describe
from trilemma.planner.bench import Bench
from trilemma.planner.bounds import Bounds, Work
from trilemma.planner.candidate import Candidate
from trilemma.planner.candidates import deployments
from trilemma.planner.disaggregated_bench import AT_ONCE, FIRST_TOKENS, decode_saturation, prefill_saturation, prefilled
from trilemma.planner.question import Question
from trilemma.planner.screening import Chunk, screened
from trilemma.planner.streams import streams_of
from trilemma.planner.trial import MOST_REPLICAS

OF_GAPS = frozenset({Metric.ITL, Metric.TPOT})
SLACK = 1e-9
DIGITS = 2  # of watts: what differs by less costs the same
Group = tuple[object, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A deployment as a pool: "prefill" or "decode", the fewest replicas that serve the load with its headroom (spare
    ones apart; by a bound, or found), and what it does then, once found (prefill): the latencies of the first token
    that limits bound, seconds, and the watts of its busy time. `after_s` is the least that comes between a prompt's KV
    and its first token: in this decode pool, or in any behind this prefill pool."""

    candidate: Candidate
    role: str
    fewest: int
    statistics: tuple[float, ...] = ()
    after_s: float = 0.0
    content: ClassVar[tuple[str, ...]] = ("candidate", "role", "fewest", "after_s")

    @property
    def deployment(self) -> Deployment:
        """One replica."""
        return self.candidate.deployment

    @property
    def group(self) -> Group:
        """What two pools have to have in common."""
        return group_of(self.deployment)


def group_of(d: Deployment) -> Group:
    """What two pools have to have in common: KV goes from one to the other as it is, cut anew for another tensor
    parallelism only where every token of a context has the same (vLLM and SGLang refuse it for windows and states)."""
    uniform = kv_footprint(d.model, d.kv_bytes_per_element, Parallelism()).is_uniform
    cut = None if uniform else d.parallelism.tensor
    return (d.precision.name, d.engine.name, d.kv_bytes_per_element, d.accelerator.vendor, cut)


def why_none(question: Question) -> str:
    """Why a question has no disaggregated candidates; empty where it may."""
    workload, requests = question.workload, question.workload.requests
    if workload.batch or workload.clients:
        return f"{'a job' if workload.batch else 'a closed loop'} is planned with prefill and decode together"
    if requests.think_s is not None:
        return "sessions whose turns wait for answers are planned with prefill and decode together"
    if requests.priority is not None:
        return "priorities are not played where prefill and decode are apart"
    return ""


def pool_deployments(question: Question) -> tuple[Deployment, ...]:
    """The deployments of the space that may be a pool, those apart that differ in nothing it matters for.

    Pipelines and drafted tokens are left out: engines move the KV cache of neither everywhere.
    """
    found = (d for d in deployments(question) if d.parallelism.pipeline == 1 and not d.speculative_mtp)
    return tuple(d for d in found if d.accelerator.network_bytes_per_s > 0)


def bound_stages(question: Question, chunk: Chunk) -> tuple[Stage | Rejection, ...]:
    """Every deployment of a chunk as a prefill pool and as a decode pool, with the fewest replicas by a bound, or why
    it can be neither of them: even a request alone misses a limit."""
    found = (c for c in screened(question, chunk) if not isinstance(c, Rejection))  # those are rejected together too
    return tuple(stage for candidate in found for stage in _bounded(question, candidate))


def _bounded(question: Question, candidate: Candidate) -> Iterator[Stage | Rejection]:
    bench, limits = Bench(candidate, question), question.limits
    whole, needed = bench.bounds, question.asked_rps
    kv_tokens = float(bench.limits.kv_blocks * bench.limits.block_tokens)
    if kv_tokens:
        early = tuple(x for x in limits if x.metric is Metric.TTFT)
        if misses := _missed(whole, early, bench):
            yield _out(candidate, "prefill", misses)
        else:
            rps = Bounds(candidate, of_prompts(whole.work), kv_tokens=kv_tokens).capacity_rps()
            yield Stage(candidate=candidate, role="prefill", fewest=at_least(needed, rps))
        gaps = tuple(x for x in limits if x.metric in OF_GAPS)
        if misses := _missed(whole, gaps, bench):
            yield _out(candidate, "decode", misses)
        elif not candidate.deployment.knobs.prefix_caching:
            first = FIRST_TOKENS.get(candidate.deployment.engine.name) == "decode"
            answers = Bounds(candidate, of_answers(whole.work, first_here=first), kv_tokens=kv_tokens)
            gaps = tuple(x for x in gaps if x.of is None)
            rps = answers.capacity_rps(gaps, bench.margins) if answers.work.decodes else inf
            engine = candidate.deployment.engine.name
            after_s = 0.0 if engine in AT_ONCE else candidate.steps.efficiency.engine.request_s
            after_s += whole.decode_s() if first else 0.0
            yield Stage(candidate=candidate, role="decode", fewest=at_least(needed, rps), after_s=after_s)
    candidate.forget()


def _missed(bounds: Bounds, limits: tuple[Limit, ...], bench: Bench) -> tuple[Miss, ...]:
    return bounds.misses(bench.question.workload, limits, bench.margins)


def _out(candidate: Candidate, role: str, misses: tuple[Miss, ...]) -> Rejection:
    """A pool that even a request alone finds too slow, told of the pair of two such pools."""
    d = replace(candidate.deployment, knobs=replace(candidate.deployment.knobs, prefix_caching=False))
    label = describe(replace(candidate.deployment, decode=d))
    reason = f"{role} pool: {misses[0].text} even alone on a replica"
    return Rejection(label=label, stage="limits", reason=reason, misses=misses)


def of_prompts(work: Work) -> Work:
    """The part of a workload's work that computes prompts."""
    return replace(work, decodes=0.0, context_tokens=0.0, own_context_tokens=0.0)


def of_answers(work: Work, *, first_here: bool) -> Work:
    """The part that generates. Where the first token comes with the KV, sequences are in one step fewer than tokens:
    the bound counts a step for each request, which is then taken off again."""
    decodes = work.decodes if first_here else max(0.0, work.decodes - work.requests)
    return replace(work, prompts=work.prompts[:0], prompt_tokens=0.0, pairs=0.0, decodes=decodes)


def at_least(needed_rps: float, rps: float) -> int:
    """The fewest replicas that take a rate, at so much each."""
    if rps <= 0:
        return MOST_REPLICAS + 1
    return max(1, ceil(needed_rps / rps - SLACK)) if rps < inf else 1


def find_stage(question: Question, stage: Stage) -> tuple[int, tuple[float, ...]]:
    """(the fewest replicas a pool was found to take, what it does then): a decode pool those that its saturation asks
    for, a prefill pool those on which the prompts alone, and the way of their KV, keep every limit on the first token.

    What fails so is nothing that back-pressure, a decode pool or another way of the KV could let through. Over
    MOST_REPLICAS where no number does.
    """
    found = _find_prefill(question, stage) if stage.role == "prefill" else _find_decode(question, stage)
    stage.candidate.forget()
    return found


def _find_decode(question: Question, stage: Stage) -> tuple[int, tuple[float, ...]]:
    needed = at_least(question.asked_rps, decode_saturation(question, stage.candidate))
    return max(stage.fewest, needed), ()


def _find_prefill(question: Question, stage: Stage) -> tuple[int, tuple[float, ...]]:
    candidate, margins = stage.candidate, Bench(stage.candidate, question).margins
    limits = tuple(x for x in question.limits if x.metric is Metric.TTFT)
    requests = streams_of(question.workload).at_sizing_rate.at_rate(1 + question.sizing.headroom)
    least = max(stage.fewest, at_least(question.asked_rps, prefill_saturation(question, candidate)))
    statistics: dict[int, tuple[float, ...]] = {}

    def holds(replicas: int) -> bool:
        run = prefilled(question, candidate, requests, replicas, after_s=stage.after_s)
        values = verdict(run.timings, limits)
        busy_w = run.prefill_s / run.span_s * candidate.deployment.gpus * candidate.deployment.accelerator.prefill_w
        latencies = (inf if x is None else x for x in values.values())
        statistics[replicas] = (*latencies, float(f"{busy_w:.{DIGITS}g}"))
        return not judge(values, limits, margins=margins)

    if least > MOST_REPLICAS:
        return least, ()
    found = fewest(holds, least, most_of(least))
    return (MOST_REPLICAS + 1, ()) if found is None else (found, statistics[found])


def most_of(least: int) -> int:
    """So many replicas that more of them would find nothing left to take from each other."""
    return min(MOST_REPLICAS, 16 * least + 16)


def fewest(holds: Callable[[int], bool], least: int, most: int, start: int | None = None) -> int | None:
    """The fewest from `least` to `most` that hold: stepping away from `start` ever faster, then halving; None where not
    even the most do."""
    known: dict[int, bool] = {}

    def check(count: int) -> bool:
        if count not in known:
            known[count] = holds(count)
        return known[count]

    at = min(max(least, start or least), most)
    step = 1
    if check(at):
        high, low = at, at
        while low > least:
            low = max(least, high - step)
            if not check(low):
                break
            high, step = low, 2 * step
        else:
            return high
    else:
        low = high = at
        while True:
            if high >= most:
                return None
            low, high = high, min(most, high + step)
            step *= 2
            if check(high):
                break
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if check(middle) else (middle, high)
    return high
