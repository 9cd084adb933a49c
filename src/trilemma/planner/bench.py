"""One candidate under load: its step table, its saturation and its knee.

The knee is found on real arrivals: a replica behind a round-robin router over k replicas sees every k-th request of
the trace, and k and the trace's speed are chosen for the rate that is asked about.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from trilemma.latency.table import StepTable
from trilemma.metrics.limits import Metric, Miss
from trilemma.metrics.summary import judge, verdict
from trilemma.planner.candidates import Candidate
from trilemma.planner.question import Question
from trilemma.search.bisect import largest
from trilemma.sim.limits import limits_of
from trilemma.sim.replica import EngineLimits, Run, simulate
from trilemma.workload.requests import Requests

SATURATION_REQUESTS = 4000
KNEE_REQUESTS = 4000
KNEE_PRECISION = 0.03
FIRST_GUESS = 0.7  # of saturation: where knees of interactive limits usually lie


@dataclass
class Bench:
    """A candidate ready to be simulated; remembers how often it was and the last misses seen."""

    candidate: Candidate
    question: Question
    table: StepTable = field(init=False)
    limits: EngineLimits = field(init=False)
    simulations: int = 0
    last_misses: tuple[Miss, ...] = ()

    def __post_init__(self) -> None:
        self.table = self.candidate.steps.table()
        self.limits = limits_of(self.candidate.deployment, self.candidate.memory.usable_blocks)

    def play(self, requests: Requests, replicas: int, clients: int = 0) -> Run:
        """One simulation; TTFT and e2e include the engine's time per request before scheduling."""
        self.simulations += 1
        run = simulate(
            requests, self.table, self.limits, replicas=replicas, clients=clients,
            ranks=self.ranks, shared_experts=self.ranks > 1,
        )  # fmt: skip
        before_s = self.candidate.steps.efficiency.engine.request_s
        timings = replace(
            run.timings, first_token_s=run.timings.first_token_s + before_s, done_s=run.timings.done_s + before_s
        )
        return replace(run, timings=timings)

    @property
    def ranks(self) -> int:
        """Attention-DP ranks of a replica, which step together; `limits` are those of one."""
        return self.candidate.deployment.parallelism.data

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
    """Requests per second of one replica with an endless queue: the middle half of the answers of a long burst.

    Of lengths alone: prefix blocks stay out, for requests picked all over a workload share fewer than neighbours do.
    0.0 when every request is refused.
    """
    requests = bench.question.workload.requests
    n, wanted = len(requests), max(SATURATION_REQUESTS, 4 * bench.limits.max_num_seqs * bench.ranks)
    # Taken all over a long workload, which may drift; a short one comes round again, or its end would be all there is.
    index = np.arange(wanted) * n // wanted if n > wanted else np.arange(wanted) % n
    burst = Requests(
        arrival_s=np.zeros(wanted),
        prompt_tokens=requests.prompt_tokens[index],
        output_tokens=requests.output_tokens[index],
    )
    run = bench.play(burst, 1)
    done = np.sort(run.timings.done_s[run.timings.finished])
    if done.size < 8:
        return done.size / float(done[-1]) if done.size else 0.0
    first, last = done.size // 4, 3 * done.size // 4
    span_s = float(done[last] - done[first])
    return (last - first) / span_s if span_s > 0 else done.size / float(done[-1])


def saturation_of(question: Question, candidate: Candidate) -> float:
    """saturation_rps of a candidate on a question's workload."""
    return saturation_rps(Bench(candidate, question))


def stream_at(requests: Requests, rate_rps: float) -> tuple[Requests, int]:
    """Requests as `replicas` replicas of a round-robin fleet see them, each at `rate_rps`: (requests, replicas).

    Of k replicas as many are kept as give KNEE_REQUESTS requests, so that a tail percentile rests on enough of them.
    Sessions stay whole: a turn comes after the answer to the one before it, and shares its prefix.
    """
    trace_rps = requests.rate_per_s
    ways = max(1, round(trace_rps / rate_rps))
    kept = min(ways, len(requests), max(1, -(-KNEE_REQUESTS * ways // len(requests))))
    mine = requests.take(_dealt(requests) % ways < kept)
    factor = rate_rps * ways / trace_rps
    if requests.session is not None:  # which may be of unequal length
        factor *= kept * len(requests) / (ways * len(mine))
    return mine.at_rate(factor), kept


def _dealt(requests: Requests) -> npt.NDArray[np.int64]:
    """(n,) a request's number, or its session's, counted in order of (first) arrival."""
    n = len(requests)
    if requests.session is None:
        return np.arange(n)
    alone = requests.session < 0
    names = np.where(alone, int(requests.session.max()) + 1 + np.arange(n), requests.session)
    _, first, which = np.unique(names, return_index=True, return_inverse=True)
    number = np.empty(first.size, np.int64)
    number[np.argsort(first)] = np.arange(first.size)
    return number[which.reshape(-1)]


def knee_rps(bench: Bench, saturated_rps: float) -> tuple[float, Run | None]:
    """The highest rate of one replica that keeps the limits, at most saturation, and the run there; 0.0 if none."""
    found: list[Run] = []

    def holds(share: float) -> bool:
        stream, replicas = stream_at(bench.question.workload.requests, share * saturated_rps)
        run = bench.play(stream, replicas)
        misses = bench.misses(run)
        if misses:
            bench.last_misses = misses
            return False
        found.append(run)
        return True

    share = largest(holds, guess=FIRST_GUESS, most=1.0, precision=KNEE_PRECISION)
    return share * saturated_rps, found[-1] if found else None
