"""`simulate` and `cost`: one deployment, chosen by the user, under a scenario's load."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trilemma.api.question import DEFAULT_OFFERS, Asked, ask, kv_bytes
from trilemma.catalogue.offer import Offer
from trilemma.deployment.spec import Deployment, Parallelism
from trilemma.errors import InputError, UnsupportedError
from trilemma.planner.answer import Rejection, Trial
from trilemma.planner.bench import Bench, saturation_rps
from trilemma.planner.candidates import deployments, screen
from trilemma.planner.evaluate import hold
from trilemma.planner.plan import Progress, price, quiet
from trilemma.report.document import bill_dict, deployment_dict, finite, limit_dict, memory_dict, terms_dict

CHOICES = (
    "accelerator", "engine", "precision", "kv_precision", "tensor", "pipeline", "data", "expert", "replicas",
    "max_num_batched_tokens", "max_num_seqs",
)  # fmt: skip


def simulate(
    path: Path | str,
    *,
    deployment: Mapping[str, Any],
    overrides: Mapping[str, object] | None = None,
    catalogue_files: Sequence[Path] = (),
    seed: int | None = None,
    progress: Progress = quiet,
) -> dict[str, Any]:
    """The scenario's load on one deployment: latencies, limits, throughput, use of time and memory.

    `deployment` overrides the scenario's space key by key: accelerator, engine, precision, kv_precision, tensor,
    pipeline, data, expert, replicas (default 1), max_num_batched_tokens, max_num_seqs. What neither says takes the
    space's first value, tensor parallelism the smallest that fits. Raises UnsupportedError with the reason for a
    deployment that cannot run.
    """
    asked = ask(path, overrides=overrides, catalogue_files=catalogue_files, seed=seed)
    return simulated_dict(_run(asked, deployment, progress), asked)


def cost(
    path: Path | str,
    *,
    deployment: Mapping[str, Any],
    offer: str | None = None,
    overrides: Mapping[str, object] | None = None,
    catalogue_files: Sequence[Path] = (),
    seed: int | None = None,
    progress: Progress = quiet,
) -> dict[str, Any]:
    """The four-dimension bill of one deployment under the scenario's load, with every line's formula.

    `offer` is a kind (owned, on-demand, reserved-1y, reserved-3y, spot) or an offer's own name; default: the cheapest
    of the scenario's. The deployment is chosen as in `simulate`.
    """
    asked = ask(path, overrides=overrides, catalogue_files=catalogue_files, seed=seed)
    trial = _run(asked, deployment, progress)
    plans = [price(trial, o, asked.question) for o in _offers(asked, trial, offer)]
    best = min(plans, key=lambda p: p.usd_per_h)
    limits = [limit_dict(x, trial.summary, trial.margins.get(x.metric, 1.0)) for x in asked.question.limits]
    return {"deployment": deployment_dict(trial.deployment), "limits": limits} | bill_dict(best.bill)


def _offers(asked: Asked, trial: Trial, wanted: str | None) -> tuple[Offer, ...]:
    accelerator = trial.deployment.accelerator.name
    if wanted is not None and "/" in wanted:
        named = asked.catalogue.offer(wanted, where="--offer")
        if named.accelerator != accelerator:
            raise InputError("--offer", expected=f"an offer of {accelerator}", found=repr(wanted))
        return (named,)
    if wanted is not None:
        found = asked.catalogue.offers_for(accelerator, kinds=(wanted,), where="--offer")
    else:
        found = asked.question.space.offers_for(trial.deployment.accelerator)
        found = found or asked.catalogue.offers_for(accelerator, kinds=DEFAULT_OFFERS)
    if not found:
        raise InputError("--offer", expected=f"an offer of {accelerator}", found=f"none {wanted or ''}".strip())
    return found


def _run(asked: Asked, wanted: Mapping[str, Any], progress: Progress) -> Trial:
    progress(0, 3, "choosing")
    chosen = chosen_deployment(asked, wanted)
    replicas = _replicas(asked, wanted)
    screened = screen(chosen, asked.question)
    if isinstance(screened, Rejection):
        raise UnsupportedError(f"{screened.label}: {screened.reason}")
    bench = Bench(screened, asked.question)
    progress(1, 3, "saturation")
    saturated = saturation_rps(bench)
    if saturated <= 0:
        raise UnsupportedError(f"no request fits the KV cache of {screened.memory.kv_capacity_tokens:,} tokens")
    progress(2, 3, "the whole workload")
    trial = hold(bench, saturated, replicas)
    progress(3, 3, "")
    return trial


def _replicas(asked: Asked, wanted: Mapping[str, Any]) -> int:
    """How many replicas; in a closed loop each needs a client of its own."""
    replicas, clients = int(wanted.get("replicas", 1)), asked.question.workload.clients
    if replicas < 1:
        raise InputError("--replicas", expected="a whole number of at least 1", found=str(replicas))
    if clients and replicas > clients:
        raise InputError("--replicas", expected=f"at most one for each of the {clients} clients", found=str(replicas))
    return replicas


def chosen_deployment(asked: Asked, wanted: Mapping[str, Any]) -> Deployment:
    """The deployment that flags and scenario name together, one replica."""
    if unknown := [key for key in wanted if key not in CHOICES]:
        raise InputError("deployment", expected=f"keys among {', '.join(CHOICES)}", found=repr(unknown[0]))
    question, catalogue = asked.question, asked.catalogue
    space = question.space
    if "accelerator" in wanted:
        space = replace(space, accelerators=(catalogue.accelerator(wanted["accelerator"], where="--accelerator"),))
    if "engine" in wanted:
        space = replace(space, engines=(catalogue.engine(wanted["engine"], where="--engine"),))
    if "precision" in wanted:
        precision = catalogue.precision(wanted["precision"], model=question.model, where="--precision")
        space = replace(space, precisions=(precision,))
    if "kv_precision" in wanted:
        space = replace(space, kv_bytes_per_element=(kv_bytes(wanted["kv_precision"], where="--kv-precision"),))
    if "max_num_batched_tokens" in wanted:
        space = replace(space, max_num_batched_tokens=(wanted["max_num_batched_tokens"],))
    if "max_num_seqs" in wanted:
        space = replace(space, max_num_seqs=(wanted["max_num_seqs"],))
    if "tensor" in wanted:
        space = replace(space, tensor_parallel=(wanted["tensor"],))
    spread = Parallelism(data=wanted.get("data", 1), expert=wanted.get("expert", 1), pipeline=wanted.get("pipeline", 1))
    if spread.data > 1:
        raise UnsupportedError("attention data parallelism under a trace is not simulated yet; use --replicas")
    first = replace(
        space, accelerators=space.accelerators[:1], engines=space.engines[:1], precisions=space.precisions[:1],
        only_native=False,
    )  # fmt: skip
    choices = [
        replace(d, parallelism=replace(spread, tensor=d.parallelism.tensor))
        for d in deployments(replace(question, space=first))
    ]
    if not choices:
        raise InputError(
            "--max-num-seqs", expected="at most max_num_batched_tokens", found=", ".join(map(str, first.max_num_seqs))
        )
    return next((d for d in choices if not isinstance(screen(d, question), Rejection)), choices[0])


def simulated_dict(trial: Trial, asked: Asked) -> dict[str, Any]:
    """A trial as plain data."""
    question, summary, activity = asked.question, trial.summary, trial.fleet.activity
    capacity = trial.fleet.capacity
    busy_s = activity.prefill_gpu_s + activity.decode_gpu_s
    return {
        "name": question.name,
        "deployment": deployment_dict(trial.deployment),
        "requests": summary.requests,
        "finished": summary.finished,
        "refused_or_unfinished": summary.requests - summary.finished,
        "span_s": summary.span_s,
        "requests_per_s": summary.requests_per_s,
        "output_tokens_per_s": summary.output_tokens_per_s,
        "output_tokens_per_s_per_gpu": trial.output_tokens_per_s_per_gpu,
        "latencies": {key: finite(value) for key, value in summary.values.items()},
        "limits": [limit_dict(x, summary, trial.margins.get(x.metric, 1.0)) for x in question.limits],
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
        "notes": list(trial.notes),
    }
