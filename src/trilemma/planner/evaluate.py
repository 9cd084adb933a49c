"""One candidate on the workload: its saturation, its knee, the fleet it needs, and what that fleet does.

The knee is found on real arrivals: a replica behind a round-robin router over k replicas sees every k-th request of
the trace, and k and the trace's speed are chosen for the rate that is asked about. The sized fleet is then simulated
on the whole workload and must keep the limits there, or it grows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from trilemma.cost.sizing import replicas_for, sized_schedule
from trilemma.latency.step import StepTerms
from trilemma.latency.table import StepTable
from trilemma.metrics.activity import Activity, Capacity, Schedule
from trilemma.metrics.limits import Metric, Miss, request_bounds
from trilemma.metrics.summary import in_limits, judge, makespan_s, summarise, verdict
from trilemma.metrics.timings import Timings
from trilemma.planner.answer import Fleet, Rejection, Trial, describe
from trilemma.planner.candidates import Candidate
from trilemma.planner.question import Question
from trilemma.search.bisect import largest
from trilemma.sim.interval import margin
from trilemma.sim.predict import approximations
from trilemma.sim.replica import EngineLimits, Run, simulate
from trilemma.units import SECONDS_PER_H
from trilemma.workload.requests import Requests

SATURATION_REQUESTS = 4000
KNEE_REQUESTS = 4000
KNEE_PRECISION = 0.03
MOST_REPLICAS = 10_000  # of one fleet: beyond, the question is mistaken rather than large
FIRST_GUESS = 0.7  # of saturation: where knees of interactive limits usually lie
BURST_OPTIMISM = 1.1  # a burst's middle half may answer slower than its best stretch
GROWTHS = 6  # times a sized fleet may grow before it is given up
DOUBLINGS = 10  # the same for a job's fleet, which doubles


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
        knobs = self.candidate.deployment.knobs
        self.table = self.candidate.steps.table()
        self.limits = EngineLimits(
            max_num_batched_tokens=knobs.max_num_batched_tokens,
            max_num_seqs=knobs.max_num_seqs,
            block_tokens=knobs.block_tokens,
            kv_blocks=self.candidate.memory.usable_blocks,
        )

    def play(self, requests: Requests, replicas: int, clients: int = 0) -> Run:
        """One simulation; TTFT and e2e include the engine's time per request before scheduling."""
        self.simulations += 1
        run = simulate(requests, self.table, self.limits, replicas=replicas, clients=clients)
        before_s = self.candidate.steps.efficiency.engine.request_s
        timings = replace(
            run.timings, first_token_s=run.timings.first_token_s + before_s, done_s=run.timings.done_s + before_s
        )
        return replace(run, timings=timings)

    @cached_property
    def margins(self) -> Mapping[Metric, float]:
        """By what each predicted latency is multiplied before it meets its limit: the prediction's own uncertainty
        at the asked confidence. TTFT has its margin; ITL, TPOT and e2e share that of TPOT."""
        efficiency, confidence = self.candidate.steps.efficiency, self.question.confidence
        ttft = margin(efficiency.engine.ttft_spread, self.candidate.steps.source, confidence)
        tpot = margin(efficiency.engine.tpot_spread, self.candidate.steps.source, confidence)
        return {Metric.TTFT: ttft, Metric.ITL: tpot, Metric.TPOT: tpot, Metric.E2E: tpot, Metric.DEADLINE: tpot}

    def misses(self, run: Run) -> tuple[Miss, ...]:
        """Limits the run does not keep at the asked confidence."""
        return judge(verdict(run.timings, self.question.limits), self.question.limits, margins=self.margins)


def saturation_rps(bench: Bench) -> float:
    """Requests per second of one replica with an endless queue: the middle half of the answers of a long burst.

    0.0 when every request is refused.
    """
    requests = bench.question.workload.requests
    n, wanted = len(requests), max(SATURATION_REQUESTS, 4 * bench.limits.max_num_seqs)
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


def stream_at(requests: Requests, rate_rps: float) -> tuple[Requests, int]:
    """Requests as `replicas` replicas of a round-robin fleet see them, each at `rate_rps`: (requests, replicas).

    Of k replicas as many are kept as give KNEE_REQUESTS requests, so that a tail percentile rests on enough of them.
    """
    trace_rps = requests.rate_per_s
    ways = max(1, round(trace_rps / rate_rps))
    kept = min(ways, len(requests), max(1, -(-KNEE_REQUESTS * ways // len(requests))))
    mine = requests.take(np.arange(len(requests)) % ways < kept)
    return mine.at_rate(rate_rps * ways / trace_rps), kept


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


def activity_of(run: Run, question: Question, *, gpus: int, offered_rps: float, replicas: int) -> Activity:
    """GPU time and token work of a run on `replicas` replicas of `gpus` GPUs."""
    timings = run.timings
    good = in_limits(timings, request_bounds(question.limits))
    late = timings.finished & ~good
    tokens = timings.prompt_tokens + timings.output_tokens
    return Activity(
        span_s=run.span_s,
        rate_rps=offered_rps,
        held_gpu_s=run.span_s * replicas * gpus,
        prefill_gpu_s=run.prefill_s * gpus,
        decode_gpu_s=run.decode_s * gpus,
        useful_tokens=int(tokens[good].sum()),
        late_tokens=int(tokens[late].sum()),
        recomputed_tokens=int(timings.recomputed_tokens.sum()),
        prompt_tokens_in_limits=int(timings.prompt_tokens[good].sum()),
        output_tokens_in_limits=int(timings.output_tokens[good].sum()),
        requests=len(timings),
        requests_in_limits=int(good.sum()),
    )


def saturation_of(question: Question, candidate: Candidate) -> float:
    """saturation_rps of a candidate on a question's workload."""
    return saturation_rps(Bench(candidate, question))


def evaluate(question: Question, item: tuple[Candidate, float]) -> tuple[Trial | Rejection, int]:
    """A (candidate, saturation in requests/s) sized and simulated on the whole workload, or why it is out; and the
    number of simulations that took."""
    candidate, saturated = item
    bench = Bench(candidate, question)
    if saturated <= 0:
        reason = f"no request fits its KV cache of {candidate.memory.kv_capacity_tokens:,} tokens"
        return _out(candidate, "memory", reason), 0
    workload = question.workload
    size = _size_closed_loop if workload.clients else _size_batch if workload.batch else _size_stream
    return size(bench, saturated), bench.simulations


def hold(bench: Bench, saturated: float, replicas: int) -> Trial:
    """The whole workload on a given number of replicas, whether or not the limits hold."""
    question, workload = bench.question, bench.question.workload
    requests = workload.requests
    if not workload.clients and not workload.batch:
        requests = requests.at_rate(workload.sizing_rps / requests.rate_per_s)
    run = bench.play(requests, replicas, workload.clients)
    bench.last_misses = bench.misses(run)
    if workload.batch:
        load = len(requests) / _last_answer_s(run)
        schedules = batch_schedules(question, replicas, _last_answer_s(run))
    elif workload.clients:
        load = len(requests) / run.span_s
        held = np.array([float(replicas)])
        one = Schedule(
            seconds=np.array([run.span_s]),
            load_rps=np.array([load]),
            held_replicas=held,
            asked_replicas=held,
            reason="as long as the run takes",
        )
        schedules = (one, one)
    else:
        load = workload.sizing_rps
        schedules = _held_all_day(question, replicas)
    return _trial(
        bench,
        run,
        run,
        replicas=replicas,
        offered_rps=load,
        capacity=Capacity(saturation_rps=max(saturated, run_rps(run) / replicas), knee_rps=None),
        schedules=schedules,
    )


def run_rps(run: Run) -> float:
    """Requests finished per second of a run."""
    return int(run.timings.finished.sum()) / run.span_s if run.span_s > 0 else 0.0


def _held_all_day(question: Question, replicas: int) -> tuple[Schedule, Schedule]:
    """The same replicas, all of them asked for, in every hour."""
    profile, load = question.workload.profile, question.workload.sizing_rps
    hours = np.array([load]) if profile is None else profile.load_rps(question.workload.requests.rate_per_s)
    held = np.full(hours.size, float(replicas))
    one = Schedule(
        seconds=np.full(hours.size, SECONDS_PER_H),
        load_rps=hours,
        held_replicas=held,
        asked_replicas=held,
        reason="a fixed number of replicas",
    )
    return one, one


def _out(candidate: Candidate, stage: str, reason: str) -> Rejection:
    return Rejection(label=describe(candidate.deployment), stage=stage, reason=reason)


def _too_many(bench: Bench, replicas: int) -> Rejection | None:
    gpus, most = replicas * bench.candidate.deployment.gpus, bench.question.space.max_gpus
    if replicas > MOST_REPLICAS:
        return _out(bench.candidate, "limits", f"needs {replicas:,} replicas, over {MOST_REPLICAS:,}")
    if most is None or gpus <= most:
        return None
    reason = f"needs {gpus} GPUs for the load, max_gpus is {most}"
    return replace(_out(bench.candidate, "size", reason), gpus_needed=gpus)


def _missed(bench: Bench, misses: tuple[Miss, ...], when: str) -> Rejection:
    return replace(_out(bench.candidate, "limits", f"{misses[0].text} {when}"), misses=misses)


def _size_stream(bench: Bench, saturated: float) -> Trial | Rejection:
    """A fleet for requests that arrive by themselves."""
    question, workload, sizing = bench.question, bench.question.workload, bench.question.sizing
    knee, at_knee = knee_rps(bench, saturated)
    if at_knee is None:
        return _missed(bench, bench.last_misses, "even at 1% of saturation")
    load = workload.sizing_rps
    requests = workload.requests.at_rate(load / workload.requests.rate_per_s)
    replicas = replicas_for(load, knee, headroom=sizing.headroom, spare=sizing.spare_replicas)
    for _ in range(GROWTHS):
        if rejection := _too_many(bench, replicas):
            return rejection
        run = bench.play(requests, replicas)
        misses = bench.misses(run)
        if not misses:
            break
        replicas += 1
    else:
        return _missed(bench, misses, f"on the whole workload, even on {replicas - 1} replicas")
    needed = load * (1 + sizing.headroom)
    effective = min(knee, needed / max(1, replicas - sizing.spare_replicas))
    return _trial(
        bench,
        run,
        at_knee,
        replicas=replicas,
        offered_rps=load,
        capacity=Capacity(saturation_rps=saturated, knee_rps=knee),
        schedules=stream_schedules(question, effective),
    )


def stream_schedules(question: Question, replica_capacity_rps: float) -> tuple[Schedule, Schedule]:
    """(held all day at the peak, following the load) for requests that arrive by themselves."""
    workload, sizing = question.workload, question.sizing
    profile, load = workload.profile, workload.sizing_rps
    hours = np.array([load]) if profile is None else profile.load_rps(workload.requests.rate_per_s)
    build = partial(
        sized_schedule,
        seconds=np.full(hours.size, SECONDS_PER_H),
        load_rps=hours,
        replica_capacity_rps=replica_capacity_rps,
        headroom=sizing.headroom,
        spare=sizing.spare_replicas,
        reason="no workload.profile: the trace repeats" if profile is None else "the day follows workload.profile",
    )
    return build(scales_down=False), build(scales_down=True)


def batch_schedules(question: Question, replicas: int, makespan_s: float) -> tuple[Schedule, Schedule]:
    """(held all the period, held while the job runs) for a job that repeats every period."""
    workload, n = question.workload, len(question.workload.requests)
    period_s = max(workload.period_s or question.deadline_s or makespan_s, makespan_s)
    seconds = np.array([makespan_s, period_s - makespan_s])
    keep = seconds > 0
    build = partial(
        Schedule,
        seconds=seconds[keep],
        load_rps=np.array([n / makespan_s, 0.0])[keep],
        asked_replicas=np.array([float(replicas), 0.0])[keep],
        reason=f"the job repeats every {period_s / SECONDS_PER_H:.3g} h",
    )
    return (
        build(held_replicas=np.full(int(keep.sum()), float(replicas))),
        build(held_replicas=np.array([float(replicas), 0.0])[keep]),
    )


def smallest_fleet(candidate: Candidate, saturated: float, question: Question) -> Fleet:
    """A fleet no real one undercuts: every replica at saturation, no energy beyond idling, no headroom for latency."""
    workload, sizing = question.workload, question.sizing
    requests = workload.requests
    if workload.batch:
        n, deadline_s = len(requests), question.deadline_s
        wanted_s = deadline_s / (1 + sizing.headroom) if deadline_s is not None else float("inf")
        needed = min(n, max(1, int(np.ceil(n / (BURST_OPTIMISM * saturated * wanted_s) - 1e-9))))
        replicas = filled(needed + sizing.spare_replicas, candidate, question)
        makespan_s = n / (BURST_OPTIMISM * saturated * replicas)
        schedules, load = batch_schedules(question, replicas, makespan_s), n / makespan_s
    else:
        load = workload.sizing_rps
        replicas = max(1, replicas_for(load, saturated, headroom=sizing.headroom, spare=sizing.spare_replicas))
        schedules = stream_schedules(question, saturated)
    return Fleet(
        deployment=replace(candidate.deployment, replicas=replicas),
        capacity=Capacity(saturation_rps=saturated, knee_rps=None),
        activity=Activity(
            span_s=1.0,
            rate_rps=load,
            held_gpu_s=0.0,
            prefill_gpu_s=0.0,
            decode_gpu_s=0.0,
            useful_tokens=int(requests.prompt_tokens.sum() + requests.output_tokens.sum()),
            late_tokens=0,
            recomputed_tokens=0,
            prompt_tokens_in_limits=int(requests.prompt_tokens.sum()),
            output_tokens_in_limits=int(requests.output_tokens.sum()),
            requests=len(requests),
            requests_in_limits=len(requests),
        ),
        schedule=schedules[0],
        scaled_schedule=schedules[1],
    )


def _size_batch(bench: Bench, saturated: float) -> Trial | Rejection:
    """A fleet that finishes a job, all there at the start, before its deadline with the headroom to spare: the fewest
    replicas, the spare ones on top, and as many more as the paid units hold anyway."""
    question, spare = bench.question, bench.question.sizing.spare_replicas
    requests, n = question.workload.requests, len(question.workload.requests)
    runs: dict[int, Run] = {}

    def misses_on(replicas: int) -> tuple[Miss, ...]:
        runs[replicas] = bench.play(requests, replicas)
        others = (m for m in bench.misses(runs[replicas]) if m.limit.metric is not Metric.DEADLINE)
        return (*_late(bench, makespan_s(runs[replicas].timings)), *others)

    fewest = _fewest_in_time(bench, saturated, misses_on)
    if isinstance(fewest, Rejection):
        return fewest
    first = filled(fewest + spare, bench.candidate, question)
    for replicas in range(first, first + GROWTHS):
        if rejection := _too_many(bench, replicas):
            return rejection
        misses = misses_on(replicas)
        if not misses:  # nearly always at once, but more replicas can deal the longest requests out worse
            break
    else:
        return _missed(bench, misses, f"with its headroom, on {replicas} replicas")
    took_s = _last_answer_s(runs[replicas])
    return _trial(
        bench,
        runs[replicas],
        runs[replicas],
        replicas=replicas,
        offered_rps=n / took_s,
        capacity=Capacity(saturation_rps=max(saturated, n / took_s / replicas), knee_rps=None),
        schedules=batch_schedules(question, replicas, took_s),
    )


def _fewest_in_time(bench: Bench, saturated: float, misses_on: Callable[[int], tuple[Miss, ...]]) -> int | Rejection:
    """The fewest replicas on which a job keeps its limits, spare ones left out: doubled until enough, then bisected."""
    n, spare = len(bench.question.workload.requests), bench.question.sizing.spare_replicas
    most_gpus = bench.question.space.max_gpus
    allowed = n if most_gpus is None else most_gpus // bench.candidate.deployment.gpus - spare
    if misses := _late(bench, _longest_alone_s(bench)):
        return _missed(bench, misses, "with its headroom, even if every request had a replica for itself")
    low, high = 0, min(n, max(1, int(np.ceil(n / (saturated * _wanted_makespan_s(bench))))))
    for _ in range(DOUBLINGS):
        if rejection := _too_many(bench, high + spare):
            return rejection
        tried, misses = high, misses_on(high)
        if not misses or high >= n:  # with a replica for every request no more can help
            break
        grown = min(n, 2 * high)
        low, high = high, min(grown, allowed) if high < allowed else grown
    if misses:
        return _missed(bench, misses, f"with its headroom, even on {tried} replicas")
    while low and high - low > max(1, round(KNEE_PRECISION * high)):
        middle = (low + high) // 2
        low, high = (middle, high) if misses_on(middle) else (low, middle)
    return high


def _longest_alone_s(bench: Bench) -> float | None:
    """How long the longest prompt and the longest output take with a replica each: no job ends sooner."""
    requests = bench.question.workload.requests
    longest = {int(requests.prompt_tokens.argmax()), int(requests.output_tokens.argmax())}
    alone = requests.take(np.array(sorted(longest)))
    return makespan_s(bench.play(alone, len(alone)).timings)


def filled(replicas: int, candidate: Candidate, question: Question) -> int:
    """At least `replicas` of a batch job: as many as fit the whole units that they need in any case, since on rented
    nodes the job then ends, and the rent with it, so much sooner; never more than requests or max_gpus allow."""
    size, n = candidate.deployment.gpus, len(question.workload.requests)
    units = [
        o.purchase_unit_gpus for o in question.space.offers if o.accelerator == candidate.deployment.accelerator.name
    ]
    together = max(1, min(units, default=1) // size)
    most = n if question.space.max_gpus is None else min(n, question.space.max_gpus // size)
    return max(replicas, min(-(-replicas // together) * together, most))


def _last_answer_s(run: Run) -> float:
    """When a job's last answer is there; those of refused requests never are."""
    return float(np.nanmax(run.timings.done_s))


def _margin_of_deadline(bench: Bench) -> float:
    """By what a job's predicted time is multiplied before it meets its deadline: headroom or doubt, whichever is
    more; a slow night and a wrong prediction are not insured against twice."""
    return max(1 + bench.question.sizing.headroom, bench.margins[Metric.DEADLINE])


def _wanted_makespan_s(bench: Bench) -> float:
    """How long a job may be predicted to take; infinite without a deadline."""
    deadline_s = bench.question.deadline_s
    return deadline_s / _margin_of_deadline(bench) if deadline_s is not None else float("inf")


def _late(bench: Bench, took_s: float | None) -> tuple[Miss, ...]:
    """The deadline that a job of `took_s` misses, if it does."""
    got = float("inf") if took_s is None else took_s * _margin_of_deadline(bench)
    limits = (x for x in bench.question.limits if x.metric is Metric.DEADLINE)
    return tuple(Miss(limit=x, got=got, excess=x.excess(got)) for x in limits if not x.holds(got * (1 - 1e-9)))


def _size_closed_loop(bench: Bench, saturated: float) -> Trial | Rejection:
    """The fewest replicas on which a fixed number of clients sees its limits kept."""
    workload, sizing = bench.question.workload, bench.question.sizing
    requests, clients = workload.requests, workload.clients
    runs: dict[int, Run] = {}

    def misses_on(replicas: int) -> tuple[Miss, ...]:
        runs[replicas] = bench.play(requests, replicas, clients)
        return bench.misses(runs[replicas])

    high = 1
    while misses := misses_on(high):
        if high >= clients:
            return _missed(bench, misses, f"even on {high} replicas, one client each")
        high = min(2 * high, clients)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if misses_on(middle) else (low, middle)
    needed = int(np.ceil(high * (1 + sizing.headroom) - 1e-9)) + sizing.spare_replicas
    replicas = min(needed, clients)
    if rejection := _too_many(bench, replicas):
        return rejection
    run = bench.play(requests, replicas, clients)
    rate = len(requests) / run.span_s
    ones = np.array([float(replicas)])
    schedule = Schedule(
        seconds=np.array([SECONDS_PER_H]),
        load_rps=np.array([rate]),
        held_replicas=ones,
        asked_replicas=ones,
        reason="closed loop: the clients never leave",
    )
    knee = min(saturated, len(requests) / runs[high].span_s / high)
    return _trial(
        bench,
        run,
        runs[high],
        replicas=replicas,
        offered_rps=rate,
        capacity=Capacity(saturation_rps=max(saturated, rate / replicas), knee_rps=max(knee, rate / replicas)),
        schedules=(schedule, schedule),
    )


def _trial(
    bench: Bench,
    run: Run,
    at_knee: Run,
    *,
    replicas: int,
    offered_rps: float,
    capacity: Capacity,
    schedules: tuple[Schedule, Schedule],
) -> Trial:
    candidate, question = bench.candidate, bench.question
    deployment = replace(candidate.deployment, replicas=replicas)
    decode, prefill = step_terms(candidate, at_knee)
    summary = summarise(run.timings, question.limits)
    fleet = Fleet(
        deployment=deployment,
        capacity=capacity,
        activity=activity_of(
            run, question, gpus=deployment.parallelism.gpus, offered_rps=offered_rps, replicas=replicas
        ),
        schedule=schedules[0],
        scaled_schedule=schedules[1],
    )
    return Trial(
        fleet=fleet,
        memory=candidate.memory,
        summary=summary,
        misses=judge(summary.values, question.limits, margins=bench.margins),
        margins=bench.margins,
        decode_terms=decode,
        prefill_terms=prefill,
        bottleneck=decode.bottleneck,
        binds=what_binds(bench, at_knee, capacity, decode, prefill),
        peak_kv_share=at_knee.peak_kv_share,
        source=candidate.steps.source,
        notes=approximations(candidate.steps),
    )


def step_terms(candidate: Candidate, run: Run) -> tuple[StepTerms, StepTerms]:
    """(decode, prefill) terms of typical steps: the mean batch of `run`, and a full prefill chunk of a mean prompt."""
    timings: Timings = run.timings
    done = timings.finished
    batch = max(1, round(run.mean_running))
    context = float(timings.prompt_tokens[done].mean() + timings.output_tokens[done].mean() / 2)
    decode = candidate.steps.terms(decodes=batch, context_sum=round(batch * (context + 1)), sampling=batch)
    budget = candidate.deployment.knobs.max_num_batched_tokens
    prompt = max(1, round(float(timings.prompt_tokens[done].mean())))
    whole, rest = divmod(budget, prompt)
    pairs = whole * prompt * (prompt + 1) + rest * (rest + 1)
    return decode, candidate.steps.terms(prefill_tokens=budget, pair_sum=pairs, sampling=max(1, whole))


def what_binds(bench: Bench, run: Run, capacity: Capacity, decode: StepTerms, prefill: StepTerms) -> str:
    """What keeps a replica from taking more load, in words: the limit it would miss, and the resource behind it."""
    seats = bench.limits.max_num_seqs
    if run.timings.preemptions.sum() or run.peak_kv_share > 0.98:
        resource = f"KV memory ({100 * run.peak_kv_share:.0f}% full)"
    elif run.mean_running >= 0.95 * seats:
        resource = f"scheduler seats (max_num_seqs {seats})"
    else:
        resource = decode.bottleneck
    knee, saturated = capacity.knee_rps, capacity.saturation_rps
    if knee is None or saturated is None:
        missed = f"{bench.last_misses[0].limit.text} is missed" if bench.last_misses else "every limit holds"
        return f"{missed} at this load; a decode step waits for {resource}"
    if not bench.last_misses or knee >= 0.99 * saturated:
        return f"saturation: {resource}"
    limit = bench.last_misses[0].limit
    waits = f"prefills wait for {prefill.bottleneck}" if limit.metric is Metric.TTFT else f"decodes wait for {resource}"
    return f"{limit.text} at {100 * knee / saturated:.0f}% of saturation; {waits}"
