"""A simulated fleet as a trial with its reasons, or a candidate as a rejection."""

from dataclasses import replace

import numpy as np

from trilemma.latency.energy import step_watts
from trilemma.latency.step import StepTerms
from trilemma.latency.table import FRACTION_BITS
from trilemma.metrics.activity import Activity, BusyAt, Capacity, Schedule
from trilemma.metrics.limits import Metric, Miss
from trilemma.metrics.summary import in_own_limits, judge, summarise
from trilemma.metrics.timings import BoolArray, Timings
from trilemma.planner.answer import Fleet, Rejection, Trial, describe
from trilemma.planner.bench import Bench, stream_at
from trilemma.planner.candidate import Candidate
from trilemma.planner.candidates import beyond
from trilemma.sim.predict import approximations
from trilemma.sim.replica import Run
from trilemma.units import PS_PER_S

NEARLY = 0.95  # of the busiest hour: quieter ones differ in how busy they keep GPUs
CLEARLY_INSIDE = 0.8  # of a bound on gaps: a step of decodes alone is then not what misses it
MOST_REPLICAS = 10_000  # of one fleet: beyond, the question is mistaken rather than large


def out(candidate: Candidate, stage: str, reason: str) -> Rejection:
    """The candidate rejected at `stage` for `reason`."""
    return Rejection(label=describe(candidate.deployment), stage=stage, reason=reason)


def too_many(bench: Bench, replicas: int) -> Rejection | None:
    """Why a fleet of `replicas` is too large; None where it is not."""
    if replicas > MOST_REPLICAS:
        return out(bench.candidate, "limits", f"needs {replicas:,} replicas, over {MOST_REPLICAS:,}")
    return beyond(bench.candidate.deployment, replicas, bench.question)


def missed(bench: Bench, misses: tuple[Miss, ...], when: str) -> Rejection:
    """The candidate rejected for the limits it misses, `when` in words."""
    return replace(out(bench.candidate, "limits", f"{misses[0].text} {when}"), misses=misses)


def activity_of(
    bench: Bench,
    run: Run,
    *,
    offered_rps: float,
    replicas: int,
    others: tuple[Run, ...] = (),
    terms: tuple[StepTerms, StepTerms] | None = None,
    good: BoolArray | None = None,
) -> Activity:
    """GPU time and token work of a run on `replicas` replicas, and the watts of its typical steps.

    How busy replicas are at other loads is read from `others`, runs of the same deployment. `terms` are the run's
    `step_terms` and `good` (n,) its requests inside their limits, where they are known.
    """
    deployment, timings = bench.candidate.deployment, run.timings
    gpus = deployment.parallelism.gpus
    if good is None:
        good = in_own_limits(timings, bench.question.limits)
    late = timings.finished & ~good
    tokens = timings.prompt_tokens + timings.output_tokens
    decode, prefill = terms or step_terms(bench.candidate, run)
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
        cached_prompt_tokens=0 if run.hit_tokens is None else int(run.hit_tokens[good].sum()),
        cached_prefill_share=cached_prefill_share(bench, run),
        prefill_w=step_watts(prefill, deployment.accelerator),
        decode_w=step_watts(decode, deployment.accelerator),
        busy_at=tuple(busy_at(other) for other in others if other.span_s > 0),
    )


def cached_prefill_share(bench: Bench, run: Run) -> float:
    """Part of the prefill time that attends to prompt tokens found in the prefix cache: what the step table charges for
    pairs of a new and a found token."""
    if run.hit_tokens is None or run.prefill_s <= 0:
        return 0.0
    found = run.hit_tokens.astype(np.float64)
    pairs = float((2 * found * (run.timings.prompt_tokens - found))[run.timings.finished].sum())
    pair_s = bench.table.pair_fp / 2**FRACTION_BITS / PS_PER_S
    share: float = pairs * pair_s / bench.ranks / run.prefill_s
    return min(1.0, share)


def busy_at(run: Run) -> BusyAt:
    """How busy the replicas of a run were at its load."""
    replica_s = run.span_s * run.replicas
    prefill = min(1.0, run.prefill_s / replica_s)
    decode = min(1.0 - prefill, run.decode_s / replica_s)
    return BusyAt(rps=len(run.timings) / replica_s, prefill_share=prefill, decode_share=decode)


def at_quietest(bench: Bench, replicas: int) -> tuple[Run, ...]:
    """A run at the load that a replica sees in the quietest hour; none where hours are alike or nobody comes.

    Quiet hours keep GPUs busier than their share of the peak's requests: batches are smaller. A part of the fleet's
    requests is enough to see how much.
    """
    workload = bench.question.workload
    hourly_rps = workload.hourly_rps[workload.hourly_rps > 0]
    if not hourly_rps.size or hourly_rps.min() > NEARLY * workload.sizing_rps:
        return ()
    stream, streams = stream_at(workload.requests, float(hourly_rps.min()) / replicas)
    return (bench.play(stream, streams),)


def trial_of(
    bench: Bench,
    run: Run,
    at_knee: Run,
    *,
    replicas: int,
    offered_rps: float,
    capacity: Capacity,
    schedules: tuple[Schedule, Schedule],
    others: tuple[Run, ...] = (),
) -> Trial:
    """The sized fleet with what it did, what binds at the knee, and the steps it is made of; `others` are runs at other
    loads, which say how busy replicas are there."""
    candidate, question = bench.candidate, bench.question
    deployment = replace(candidate.deployment, replicas=replicas)
    decode, prefill = step_terms(candidate, at_knee)
    terms = (decode, prefill) if run is at_knee else step_terms(candidate, run)
    good = in_own_limits(run.timings, question.limits)
    summary = summarise(
        run.timings, question.limits, classes=question.workload.class_names, good=good if question.limits else None
    )
    fleet = Fleet(
        deployment=deployment,
        capacity=capacity,
        activity=activity_of(
            bench, run, offered_rps=offered_rps, replicas=replicas, others=others, terms=terms, good=good
        ),
        schedule=schedules[0],
        scaled_schedule=schedules[1],
    )
    return Trial(
        fleet=fleet,
        memory=candidate.memory,
        summary=summary,
        misses=judge(summary.bounded(question.limits), question.limits, margins=bench.margins),
        margins=bench.margins,
        decode_terms=decode,
        prefill_terms=prefill,
        binds=what_binds(bench, at_knee, capacity, decode, prefill),
        peak_kv_share=at_knee.peak_kv_share,
        errors=candidate.errors,
        source=candidate.steps.source,
        notes=approximations(candidate.steps) + bench.assumptions,
    )


def step_terms(candidate: Candidate, run: Run) -> tuple[StepTerms, StepTerms]:
    """(decode, prefill) terms of typical steps of an attention-DP rank: the mean batch of `run`, and a full prefill
    chunk of mean prompts."""
    timings: Timings = run.timings
    done = timings.finished
    batch = max(1, round(run.mean_running / candidate.deployment.parallelism.data))
    mean_prompt = timings.prompt_tokens[done].mean()
    context = float(mean_prompt + timings.output_tokens[done].mean() / 2)
    budget = candidate.deployment.rank_knobs.max_num_batched_tokens
    candidate.steps.look_up(batch, budget, 1)
    decode = candidate.steps.terms(decodes=batch, context_sum=round(batch * (context + 1)), sampling=batch)
    prompt = max(1, round(float(mean_prompt)))
    whole, rest = divmod(budget, prompt)
    pairs = whole * prompt * (prompt + 1) + rest * (rest + 1)
    return decode, candidate.steps.terms(prefill_tokens=budget, pair_sum=pairs, sampling=max(1, whole))


def what_binds(bench: Bench, run: Run, capacity: Capacity, decode: StepTerms, prefill: StepTerms) -> str:
    """What keeps a replica from taking more load, in words: the limit it would miss, and the resource behind it."""
    full = ""  # what there is no more of, whatever steps wait for
    if run.timings.preemptions.sum() or run.peak_kv_share > 0.98:
        full = f"KV memory ({100 * run.peak_kv_share:.0f}% full)"
    elif run.mean_running >= 0.95 * bench.limits.max_num_seqs * bench.ranks:
        full = f"scheduler seats (max_num_seqs {bench.candidate.deployment.knobs.max_num_seqs})"
    decodes = f"requests wait for {full}" if full else f"decodes wait for {_resource(decode)}"
    knee, saturated = capacity.knee_rps, capacity.saturation_rps
    if knee is None or saturated is None:
        missed = f"{bench.last_misses[0].limit.text} is missed" if bench.last_misses else "every limit holds"
        return f"{missed} at this load; {decodes}"
    if not bench.last_misses or knee >= 0.99 * saturated:
        return f"saturation: {full or _resource(decode)}"
    limit, waits = bench.last_misses[0].limit, decodes
    if limit.metric is Metric.TTFT:
        waits = f"prompts wait for {full}" if full else f"prefills wait for {_resource(prefill)}"
    elif limit.metric in {Metric.ITL, Metric.TPOT} and not full:
        alone_s = decode.total_s * bench.margins.get(limit.metric, 1.0)
        if alone_s < CLEARLY_INSIDE * limit.bound:
            waits = f"decodes wait for prefills in the same step, and those for {_resource(prefill)}"
    return f"{limit.text} at {100 * knee / saturated:.0f}% of saturation; {waits}"


def _resource(terms: StepTerms) -> str:
    """What a step waits for, so that it can stand alone."""
    return "fixed overheads of a step" if terms.bottleneck == "overhead" else terms.bottleneck
