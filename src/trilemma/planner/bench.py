"""One candidate under load: its step table, its saturation and its knee.

The knee is found on real arrivals: a replica behind a round-robin router over k replicas sees every k-th request of
the trace, and k and the trace's speed are chosen for the rate that is asked about.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf, isfinite, log

import numpy as np

from trilemma.latency.table import StepTable
from trilemma.metrics.limits import Limit, Metric, Miss
from trilemma.metrics.summary import judge, verdict
from trilemma.planner.bounds import Bounds
from trilemma.planner.candidate import Candidate
from trilemma.planner.question import Question
from trilemma.planner.streams import KNEE_PRECISION, Form, Streams, rate_of, rung_of, stream_at, streams_of
from trilemma.search.ladder import highest
from trilemma.sim.limits import assumptions, limits_of
from trilemma.sim.replica import EngineLimits, Run, simulate
from trilemma.workload.prefix import cached_tokens
from trilemma.workload.requests import Requests

__all__ = ["KNEE_PRECISION", "LOWEST_SHARE", "Bench", "Knees", "saturation_rps", "stream_at"]

SATURATION_REQUESTS = 4000
LOWEST_SHARE = 0.01  # of saturation: what misses its limits there is out
TINY = 1e-9
FIRST_GUESS = 0.7  # of saturation: where knees of interactive limits usually lie


@dataclass
class Bench:
    """A candidate ready to be simulated; remembers how often it was and the last misses seen."""

    candidate: Candidate
    question: Question
    limits: EngineLimits = field(init=False)
    simulations: int = 0
    last_misses: tuple[Miss, ...] = ()

    def __post_init__(self) -> None:
        deployment = self.candidate.deployment
        limits = limits_of(deployment, self.candidate.memory.usable_blocks)
        self.limits = replace(limits, prefix_caching=True) if deployment.knobs.prefix_caching else limits

    @cached_property
    def table(self) -> StepTable:
        """The candidate's step times."""
        return self.candidate.steps.table()

    def play(self, requests: Requests, replicas: int, clients: int = 0) -> Run:
        """One simulation; TTFT and e2e include the engine's time per request before scheduling.

        Attention-DP ranks are played as schedulers of their own that share the replica's requests (as measured runs
        say, see sim.benchmark), in step only where there are more of them than clients. Under multi-token prediction a
        step yields several tokens: gaps between tokens are those between steps.
        """
        self.simulations += 1
        ranks = self.ranks if not clients or clients >= replicas * self.ranks else 1
        played = self.streams.form(requests, self.form)
        run = simulate(
            played, self.table, self._limits_for(played),
            replicas=replicas * ranks, clients=clients,
            ranks=self.ranks // ranks, shared_experts=self.ranks > ranks,
        )  # fmt: skip
        before_s = self.candidate.steps.efficiency.engine.request_s
        timings = replace(
            run.timings,
            first_token_s=run.timings.first_token_s + before_s,
            done_s=run.timings.done_s + before_s,
            output_tokens=requests.output_tokens,
            request_class=requests.request_class,
        )
        return replace(
            run,
            timings=timings,
            replicas=replicas,
            prefill_s=run.prefill_s / ranks,
            decode_s=run.decode_s / ranks,
            mean_running=run.mean_running * ranks,
        )

    def _limits_for(self, requests: Requests) -> EngineLimits:
        """The scheduler for these requests: lengths alone have no prefixes to look up."""
        blind = self.limits.prefix_caching and requests.block_ids is None
        return replace(self.limits, prefix_caching=False) if blind else self.limits

    @cached_property
    def most_rps(self) -> float:
        """The most requests per second of a replica that any schedule serves inside the limits; 0.0 without KV
        blocks."""
        if not self.limits.kv_blocks:
            return 0.0
        workload = self.question.workload
        # Sessions that wait for their answers slow down by themselves: the rate they are asked at bounds nothing.
        streaming = not workload.batch and not workload.clients and workload.requests.think_s is None
        return self.bounds.capacity_rps(self.question.limits if streaming else (), self.margins)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What a reader should know of how the engine, its ranks and drafted tokens are played."""
        alone = type(self).play is Bench.play  # who plays otherwise has ranks step together
        said = {
            "attention-DP ranks are played one by one, their experts priced for ranks that are equally busy":
                alone and self.ranks > 1,
            "multi-token prediction: a step yields as many tokens as in published runs on average, all at once":
                self.tokens_per_step != 1,
        }  # fmt: skip
        own = tuple(text for text, holds in said.items() if holds)
        return assumptions(self.limits, ranks=1 if alone else self.ranks) + own

    @property
    def ranks(self) -> int:
        """Attention-DP ranks of a replica; `limits` are those of one."""
        return self.candidate.deployment.parallelism.data

    @cached_property
    def streams(self) -> Streams:
        """The question's workload at rates and in forms."""
        return streams_of(self.question.workload)

    @cached_property
    def form(self) -> Form:
        """How this candidate reads requests."""
        caches = self.limits.prefix_caching
        return Form(block_tokens=self.limits.block_tokens if caches else 0, tokens_per_step=self.tokens_per_step)

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a step yields of a decoding sequence, on average."""
        if not self.candidate.deployment.speculative_mtp:
            return 1.0
        return self.candidate.steps.efficiency.engine.mtp_tokens

    @cached_property
    def bounds(self) -> Bounds:
        """What no schedule can better."""
        work = self.streams.work(caching=self.limits.prefix_caching, tokens_per_step=self.tokens_per_step)
        return Bounds(self.candidate, work, kv_tokens=self.limits.kv_blocks * self.limits.block_tokens)

    @cached_property
    def margins(self) -> Mapping[Metric, float]:
        """By what each predicted latency is multiplied before it meets its limit: the prediction's own uncertainty
        at the asked confidence. TTFT has its margin; ITL, TPOT and e2e share that of TPOT."""
        ttft = self.candidate.errors["ttft"].margin(self.question.confidence)
        tpot = self.candidate.errors["tpot"].margin(self.question.confidence)
        return {Metric.TTFT: ttft, Metric.ITL: tpot, Metric.TPOT: tpot, Metric.E2E: tpot, Metric.DEADLINE: tpot}

    def misses(self, run: Run) -> tuple[Miss, ...]:
        """Limits the run does not keep at the asked confidence."""
        return judge(verdict(run.timings, self.question.limits), self.question.limits, margins=self.margins)


def saturation_rps(bench: Bench) -> float:
    """Requests per second of one replica with an endless queue: the middle half of the answers of a long burst, at most
    what any schedule can do.

    Of lengths alone, since requests picked all over a workload share fewer prefixes than neighbours do: under prefix
    caching prompts are as short as an endless cache makes them. 0.0 when every request is refused.
    """
    requests = bench.question.workload.requests
    if bench.limits.prefix_caching and (found := cached_tokens(requests)) is not None:
        requests = replace(requests, prompt_tokens=requests.prompt_tokens - found)
    n, wanted = len(requests), max(SATURATION_REQUESTS, 4 * bench.limits.max_num_seqs * bench.ranks)
    # Taken all over a long workload, which may drift; a short one comes round again, or its end would be all there is.
    index = np.arange(wanted) * n // wanted if n > wanted else np.arange(wanted) % n
    burst = Requests(
        arrival_s=np.zeros(wanted),
        prompt_tokens=requests.prompt_tokens[index],
        output_tokens=requests.output_tokens[index],
    )
    return min(_answered_rps(bench.play(burst, 1)), bench.bounds.capacity_rps())


def _answered_rps(run: Run) -> float:
    """Requests per second that the middle half of a burst's answers came at."""
    done = np.sort(run.timings.done_s[run.timings.finished])
    if done.size < 8:
        return done.size / float(done[-1]) if done.size else 0.0
    first, last = done.size // 4, 3 * done.size // 4
    span_s = float(done[last] - done[first])
    return (last - first) / span_s if span_s > 0 else done.size / float(done[-1])


class Knees:
    """The knee of a replica: the highest rate that keeps the limits. Rates are the rungs of a ladder that all
    candidates share, and saturation itself above them; what was played is not played again."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._slacks: dict[float, float] = {}
        self._runs: dict[float, Run] = {}

    def slack(self, rate_rps: float) -> float:
        """How far inside the limits a replica is at a rate, as the least logarithm of bound over value; below 0 where
        it misses one."""
        if rate_rps not in self._slacks:
            self._slacks[rate_rps] = self._played(rate_rps)
        return self._slacks[rate_rps]

    def _played(self, rate_rps: float) -> float:
        bench, limits = self.bench, self.bench.question.limits
        stream, replicas = bench.streams.at(rate_rps)
        run = bench.play(stream, replicas)
        values = verdict(run.timings, limits)
        misses = judge(values, limits, margins=bench.margins)
        least = min((_slack(limit, values[limit.key], bench.margins) for limit in limits), default=inf)
        if misses:
            bench.last_misses = misses
            return min(least, -TINY)
        self._runs[rate_rps] = run
        return max(least, 0.0)

    def highest(
        self, saturated_rps: float, *, near_rps: float | None = None, worth_rps: float = 0.0
    ) -> tuple[float, Run | None]:
        """The knee, at most saturation, and the run there; 0.0 if there is none, or none from `worth_rps` on.

        The search starts at `near_rps`, the knee of a candidate much like this one, or where knees usually lie: that
        changes how long it takes.
        """
        most_rps = min(saturated_rps, self.bench.most_rps)
        top = rung_of(most_rps) + 1

        def rate(rung: int) -> float:
            return most_rps if rung == top else rate_of(rung)

        guess, stride = (FIRST_GUESS * most_rps, 8) if near_rps is None else (min(near_rps, most_rps), 4)
        least = min(rung_of(max(LOWEST_SHARE * saturated_rps, worth_rps)), top)
        rung = highest(lambda rung: self.slack(rate(rung)), guess=rung_of(guess), least=least, most=top, stride=stride)
        return (0.0, None) if rung is None else (rate(rung), self._runs[rate(rung)])


def _slack(limit: Limit, value: float | None, margins: Mapping[Metric, float]) -> float:
    """How far a value is inside a limit, as a logarithm: below zero where it misses; infinite where nobody can say."""
    if value is None or not isfinite(value):
        return -inf
    if limit.metric is Metric.GOODPUT:
        return log((1 - limit.bound + TINY) / (1 - value + TINY))
    judged = value * margins.get(limit.metric, 1.0)
    return log(limit.bound / judged) if judged > 0 else inf
