"""`simulate`: one deployment, chosen by the user, under a scenario's load; its numbers, its files, its comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import trilemma
from trilemma.api.chosen import held, saturated, staged
from trilemma.api.question import Asked, ask
from trilemma.api.stage import ROUTINGS, Stage, power_w, usual_resolution_s
from trilemma.errors import InputError, did_you_mean
from trilemma.metrics.outcomes import Outcomes
from trilemma.metrics.series import Series
from trilemma.metrics.summary import Summary
from trilemma.planner.answer import Trial, describe
from trilemma.planner.plan import Progress, quiet
from trilemma.planner.question import Workload
from trilemma.report.chrome_trace import MOST_REQUESTS, write_chrome_trace
from trilemma.report.classes import fared_dicts
from trilemma.report.document import classes_asked, deployment_dict, limit_dict, memory_dict, served_dict, terms_dict
from trilemma.report.files import check_apart, check_writable
from trilemma.report.numbers import finite
from trilemma.report.requests_file import check_table_file, request_columns, series_columns, write_table
from trilemma.report.simulation import series_dict
from trilemma.sim.engine import EngineLimits, Policy
from trilemma.sim.fleet import Routing
from trilemma.units import parse_time_s, show_time
from trilemma.workload.requests import FloatArray

COMPARISONS = ("prefix-caching",)
CAPACITY_POLICIES = {
    "guaranteed-no-evict": Policy.TRTLLM_NO_EVICT,
    "max-utilization": Policy.TRTLLM_MAX_UTILIZATION,
}
LEAST_RESOLUTION_S = 1e-6
SATURATED_WITHOUT = "saturation is measured without prefix caching"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFiles:
    """Where a simulated run is written beside its result: a table of requests, one of the run over time (.parquet,
    .arrow or .csv), and a Chrome trace with at most `trace_requests` requests. None: nowhere."""

    requests: Path | None = None
    series: Path | None = None
    trace: Path | None = None
    trace_requests: int = MOST_REQUESTS

    def check(self) -> None:
        """Raises InputError or UnsupportedError for what could not be written, before anything is simulated."""
        check_apart({"--requests-file": self.requests, "--series-file": self.series, "--chrome-trace": self.trace})
        for where, path in (("--requests-file", self.requests), ("--series-file", self.series)):
            if path is not None:
                check_table_file(path, where=where)
        if self.trace is not None:
            check_writable(self.trace, where="--chrome-trace")
        if self.trace_requests < 0:
            found = str(self.trace_requests)
            raise InputError("--chrome-trace-requests", expected="a whole number from 0", found=found)

    def write(self, outcomes: Outcomes, series: Series, power_w: FloatArray, about: Mapping[str, str]) -> None:
        """Writes each file whole or not at all."""
        if self.requests is not None:
            write_table(self.requests, request_columns(outcomes), where="--requests-file", about=about)
        if self.series is not None:
            write_table(self.series, series_columns(series, power_w), where="--series-file", about=about)
        if self.trace is not None:
            write_chrome_trace(
                self.trace, outcomes, series, where="--chrome-trace", power_w=power_w,
                most_requests=self.trace_requests, about=about,
            )  # fmt: skip


def simulate(
    path: Path | str,
    *,
    deployment: Mapping[str, Any],
    routing: str = "round-robin",
    prefix_caching: bool = False,
    async_scheduling: bool = False,
    capacity_policy: str | None = None,
    max_tokens: int | None = None,
    compare: str | None = None,
    resolution: str | None = None,
    files: RunFiles | None = None,
    overrides: Mapping[str, object] | None = None,
    catalogue_files: Sequence[Path] = (),
    seed: int | None = None,
    progress: Progress = quiet,
) -> dict[str, Any]:
    """The scenario's load on one deployment: latencies, limits, throughput, use of time and memory, the run over time.

    `deployment` overrides the scenario's space key by key: accelerator, engine, precision, kv_precision, tensor,
    pipeline, data, expert, replicas (default 1), max_num_batched_tokens, max_num_seqs. What neither says takes the
    space's first value, tensor parallelism the smallest that fits. `routing` is one of ROUTINGS, `capacity_policy` one
    of CAPACITY_POLICIES (TensorRT-LLM's; None: the first). `max_tokens` is what clients ask for at most, where the
    engine holds KV back by it; None: what they get. `resolution` is a time such as "10 s"; left out, the run is cut
    into about a hundred intervals.

    `compare` "prefix-caching" gives {"off": ..., "on": ...}, each such a result; `files` are then not written.

    Raises InputError for what cannot be meant or written, UnsupportedError with the reason for a deployment that
    cannot run.
    """
    resolution_s = _resolution_s(resolution)
    _check_choices(routing, compare, prefix_caching=prefix_caching)
    if files is not None:
        if compare is not None and files != RunFiles(trace_requests=files.trace_requests):
            raise InputError("--compare", expected="no files of a run beside it", found="two runs to write")
        files.check()
    asked = ask(path, overrides=overrides, catalogue_files=catalogue_files, seed=seed)
    if (prefix_caching or compare is not None) and asked.question.workload.requests.block_ids is None:
        expected = "a workload that names its prefix blocks: a Mooncake trace, or sessions"
        where = "--prefix-caching" if compare is None else "--compare"
        raise InputError(where, expected=expected, found=asked.question.workload.label)
    variants = {"": prefix_caching} if compare is None else {"off": False, "on": True}
    results = {}
    for number, (name, caching) in enumerate(variants.items()):
        step = _nth(progress, number, len(variants))
        step(0, 3, "choosing")
        replicas, stage = staged(asked, deployment, routing=ROUTINGS[routing], prefix_caching=caching)
        if stage.ranks > 1 and ROUTINGS[routing] > Routing.SESSION_STICKY:
            expected = "round-robin or session-sticky beside attention-DP ranks"
            raise InputError("--routing", expected=expected, found=repr(routing))
        stage.limits = replace(stage.limits, async_scheduling=async_scheduling)
        stage.limits = _reserving(stage.limits, capacity_policy, max_tokens)
        most_rps = saturated(stage, step)
        stage.sample_s = resolution_s or usual_resolution_s(_span_s(asked, most_rps * replicas))
        trial = held(stage, most_rps, replicas, step)
        outcomes, series = stage.outcomes(), stage.series()
        watts = power_w(series, trial.deployment, trial.fleet.activity)
        results[name] = simulated_dict(trial, asked, stage, outcomes) | {"series": series_dict(series, watts.tolist())}
        if files is not None:
            about = {"trilemma": trilemma.__version__, "scenario": asked.question.name}
            files.write(outcomes, series, watts, about | {"deployment": describe(trial.deployment)})
    return results[""] if compare is None else {"name": asked.question.name, "compare": compare} | results


def _check_choices(routing: str, compare: str | None, *, prefix_caching: bool) -> None:
    """Raises InputError for unknown words and for what does not go together."""
    if routing not in ROUTINGS:
        hint = did_you_mean(routing, ROUTINGS)
        raise InputError("--routing", expected=f"one of {', '.join(ROUTINGS)}", found=repr(routing), hint=hint)
    if compare is not None and compare not in COMPARISONS:
        raise InputError("--compare", expected=f"one of {', '.join(COMPARISONS)}", found=repr(compare))
    if routing == "prefix-aware" and (compare is not None or not prefix_caching):
        found = "a comparison with it off" if compare is not None else "caching off"
        raise InputError("--routing", expected="prefix caching on beside prefix-aware routing", found=found)


def _reserving(limits: EngineLimits, capacity_policy: str | None, max_tokens: int | None) -> EngineLimits:
    """The engine's scheduler with its capacity policy, and with what clients ask for, where that counts."""
    if capacity_policy is not None:
        if capacity_policy not in CAPACITY_POLICIES:
            hint, names = did_you_mean(capacity_policy, CAPACITY_POLICIES), ", ".join(CAPACITY_POLICIES)
            raise InputError("--capacity-policy", expected=f"one of {names}", found=repr(capacity_policy), hint=hint)
        if limits.policy is not Policy.TRTLLM_NO_EVICT:
            raise InputError("--capacity-policy", expected="TensorRT-LLM", found="an engine without one")
        limits = replace(limits, policy=CAPACITY_POLICIES[capacity_policy])
    if max_tokens is None:
        return limits
    if max_tokens < 1:
        raise InputError("--max-tokens", expected="a whole number of at least 1", found=str(max_tokens))
    if limits.policy not in {Policy.TRTLLM_NO_EVICT, Policy.SGLANG}:
        expected = "SGLang, or TensorRT-LLM's guaranteed-no-evict"
        raise InputError("--max-tokens", expected=expected, found="a scheduler that does not look at it")
    return replace(limits, max_new_tokens=max_tokens)


def _resolution_s(resolution: str | None) -> float | None:
    if resolution is None:
        return None
    seconds = parse_time_s(resolution, where="--resolution")
    if seconds < LEAST_RESOLUTION_S:
        raise InputError("--resolution", expected=f"at least {show_time(LEAST_RESOLUTION_S)}", found=repr(resolution))
    return seconds


def _span_s(asked: Asked, saturated_rps: float) -> float:
    """About how long the run will take, seconds."""
    workload = asked.question.workload
    n, least_s = len(workload.requests), len(workload.requests) / saturated_rps
    if workload.clients or workload.batch or workload.sizing_rps <= 0:
        return least_s
    return max(least_s, n / workload.sizing_rps)


def _nth(progress: Progress, number: int, count: int) -> Progress:
    """Progress of one of several runs of three stages each."""
    return lambda done, total, now: progress(number * total + done, count * total, now)


def simulated_dict(trial: Trial, asked: Asked, stage: Stage, outcomes: Outcomes) -> dict[str, Any]:
    """A trial with what its requests did, as plain data."""
    question, summary, activity = asked.question, trial.summary, trial.fleet.activity
    capacity = trial.fleet.capacity
    busy_s = activity.prefill_gpu_s + activity.decode_gpu_s
    return {
        "name": question.name,
        "deployment": deployment_dict(trial.deployment)
        | {
            "routing": next(name for name, routing in ROUTINGS.items() if routing is stage.routing),
            "prefix_caching": stage.limits.prefix_caching,
            "async_scheduling": stage.limits.async_scheduling,
            "scheduler": stage.limits.policy.name.lower(),
        },
        **served_dict(summary),
        "output_tokens_per_s_per_gpu": trial.output_tokens_per_s_per_gpu,
        "latencies": {key: finite(value) for key, value in summary.values.items()},
        "classes": _classes(question.workload, summary),
        "limits": [limit_dict(x, summary, trial.margins.get(x.metric, 1.0)) for x in question.limits],
        "queued_mean_s": _mean(outcomes.queued_s),
        "queued_time_by_reason": outcomes.wait_shares,
        "queued_requests_by_reason": outcomes.wait_counts,
        "prefix_hit_share": outcomes.hit_share if stage.limits.prefix_caching else None,
        "preemptions": summary.preemptions,
        "recomputed_tokens": activity.recomputed_tokens,
        "gpu_time": {
            "prefill": activity.prefill_gpu_s / activity.held_gpu_s,
            "decode": activity.decode_gpu_s / activity.held_gpu_s,
            "idle": max(0.0, 1 - busy_s / activity.held_gpu_s),
        },
        "saturation_requests_per_s_per_replica": capacity.saturation_rps,
        "peak_kv_share": trial.peak_kv_share,
        "binds": trial.binds,
        "memory": memory_dict(trial.memory),
        "decode_step": terms_dict(trial.decode_terms),
        "prefill_step": terms_dict(trial.prefill_terms),
        "source": trial.source.label,
        "notes": [*trial.notes, *([SATURATED_WITHOUT] if stage.limits.prefix_caching else [])],
    }


def _classes(workload: Workload, summary: Summary) -> list[dict[str, Any]] | None:
    """What each class asked for and how it fared; None without classes."""
    asked, fared = classes_asked(workload), fared_dicts(summary)
    return None if asked is None or fared is None else [a | f for a, f in zip(asked, fared, strict=True)]


def _mean(values: FloatArray) -> float | None:
    """The mean of what is known; None where nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None
