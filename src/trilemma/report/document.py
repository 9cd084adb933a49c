"""A plan as plain data: what JSON and YAML hold, described by docs/answer.schema.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trilemma.cost.bill import Bill
from trilemma.deployment.memory import Memory
from trilemma.deployment.spec import Deployment
from trilemma.latency.step import StepTerms
from trilemma.metrics.limits import Limit, Metric
from trilemma.metrics.summary import Summary
from trilemma.planner.answer import Answer, Plan, Rejection
from trilemma.planner.explanation import Explanation
from trilemma.planner.question import Question, Workload
from trilemma.report.classes import fared_dicts
from trilemma.report.numbers import finite
from trilemma.report.plan_explanation import explanation_dict, miss_dict
from trilemma.workload.arrivals import ClosedLoop
from trilemma.workload.class_statistics import class_statistics
from trilemma.workload.statistics import statistics

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """An answer with what it needs to be read and run again, and what explains it."""

    answer: Answer
    question: Question
    scenario: Mapping[str, Any]
    launch: str
    launch_summary: str
    version: str
    catalogue_digest: str
    explanation: Explanation | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values; numbers that do not exist are None."""
        answer, chosen = self.answer, self.answer.chosen
        workload = self.question.workload
        bill = None if chosen is None else bill_dict(chosen.bill)
        return {
            "format": FORMAT,
            "name": answer.name,
            "versions": {
                "trilemma": self.version,
                "catalogue_sha256": self.catalogue_digest,
                "engine": None if chosen is None else _engine(chosen.trial.deployment),
                "seed": self.question.seed,
                "as_of": self.question.as_of,
            },
            "complete": answer.complete,
            "objective": self._objective(),
            "scenario": dict(self.scenario),
            "workload": {"label": workload.label, "sizing_requests_per_s": finite(workload.sizing_rps)}
            | statistics(
                workload.requests,
                closed_loop=ClosedLoop(concurrency=workload.clients) if workload.clients else None,
                has_latency_limits=any(limit.metric is not Metric.DEADLINE for limit in self.question.limits),
                has_deadline=self.question.deadline_s is not None,
            ).as_dict()
            | {"classes": classes_asked(workload)},
            "counts": {
                "shapes": answer.counts.shapes,
                "candidates": answer.counts.candidates,
                "simulated": answer.counts.simulated,
                "sized": answer.counts.sized,
                "simulations": answer.counts.simulations,
            },
            "chosen": None if chosen is None else plan_dict(chosen, self.question) | {"launch": self.launch},
            "bill": bill,
            "use_view": None if bill is None else bill["use_view"],
            "usd_per_mtok_output": None if bill is None else bill["usd_per_mtok_output"],
            "frontier": [plan_row(p) for p in answer.frontier],
            "plans": [plan_row(p) for p in answer.plans],
            "rejected": [rejection_dict(r) for r in answer.rejected],
            "warnings": list(answer.warnings),
        } | explanation_dict(self.explanation)

    def _objective(self) -> dict[str, Any]:
        """What the chosen plan is best in."""
        found, budget = self.explanation, self.question.space.budget_usd_per_month
        return {
            "name": self.question.objective.value,
            "sentence": "" if found is None else found.sentence,
            "load_factor": 1.0 if found is None else found.load_factor,
            "budget_usd_per_month": budget,
        }


def _engine(deployment: Deployment) -> str:
    return f"{deployment.engine.name} {deployment.engine.version}"


def deployment_dict(d: Deployment) -> dict[str, Any]:
    """A deployment's choices, in the words of a scenario's `space`."""
    return {
        "model": d.model.name,
        "accelerator": d.accelerator.name,
        "engine": d.engine.name,
        "precision": d.precision.name,
        "kv_precision": "fp8" if d.kv_bytes_per_element < 2 else "bf16",
        "tensor_parallel": d.parallelism.tensor,
        "pipeline_parallel": d.parallelism.pipeline,
        "data_parallel": d.parallelism.data,
        "expert_parallel": d.parallelism.expert,
        "max_num_batched_tokens": d.knobs.max_num_batched_tokens,
        "max_num_seqs": d.knobs.max_num_seqs,
        "max_model_len": d.knobs.max_model_len,
        "replicas": d.replicas,
        "gpus_per_replica": d.parallelism.gpus,
        "gpus": d.gpus,
        "decode_pool": None if d.decode is None else _decode_pool_dict(d.decode),
    }


def _decode_pool_dict(d: Deployment) -> dict[str, Any]:
    """The decode pool of a deployment whose prefill is apart, as far as it may differ from the prefill pool."""
    return {
        "accelerator": d.accelerator.name,
        "tensor_parallel": d.parallelism.tensor,
        "data_parallel": d.parallelism.data,
        "expert_parallel": d.parallelism.expert,
        "max_num_batched_tokens": d.knobs.max_num_batched_tokens,
        "max_num_seqs": d.knobs.max_num_seqs,
        "replicas": d.replicas,
        "gpus_per_replica": d.parallelism.gpus,
        "gpus": d.gpus,
    }


def _planned_decode_pool(p: Plan) -> dict[str, Any] | None:
    """The decode pool of a plan, with what it can do and how it is obtained."""
    fleet, memory = p.trial.fleet.decode, p.trial.decode_memory
    if fleet is None or memory is None:
        return None
    return _decode_pool_dict(fleet.deployment) | {
        "offer": p.offers[-1].name,
        "capacity": {
            "saturation_requests_per_s": fleet.capacity.saturation_rps,
            "knee_requests_per_s": fleet.capacity.knee_rps,
        },
        "asked_replicas": fleet.schedule.asked_replicas.tolist(),
        "memory": memory_dict(memory),
    }


def memory_dict(m: Memory) -> dict[str, Any]:
    """Bytes of the fullest GPU by what holds them, and the KV capacity."""
    return {
        "hbm_bytes": m.hbm_bytes,
        "weight_bytes": m.weight_bytes,
        "activation_bytes": m.activation_bytes,
        "framework_bytes": m.framework_bytes,
        "kv_pool_bytes": m.pool_bytes,
        "kv_bytes_per_token_per_gpu": m.kv.bytes_per_token,
        "kv_capacity_tokens_per_replica": m.kv_capacity_tokens_per_replica,
        "num_gpu_blocks": m.num_blocks,
    }


def terms_dict(terms: StepTerms) -> dict[str, Any]:
    """One step by term, milliseconds, with what each waits for."""
    return {
        "total_ms": 1e3 * terms.total_s,
        "bottleneck": terms.bottleneck,
        "terms": [
            {"term": name, "ms": 1e3 * seconds, "binds": terms.binds[name]} for name, seconds in terms.seconds.items()
        ],
    }


def bill_dict(b: Bill) -> dict[str, Any]:
    """The bill in $/h: cash view, use view, unit costs, and the lines both are sums of."""
    by_token = b.usd_per_mtok_by_gpu_time
    return {
        "offer": b.offer,
        "capital_usd_per_h": b.capital_usd_per_h,
        "operational_usd_per_h": b.operational_usd_per_h,
        "engineering_usd_per_h": b.engineering_usd_per_h,
        "total_usd_per_h": b.total_usd_per_h,
        "opportunity_usd_per_h": b.opportunity_usd_per_h,
        "use_view": b.use_view,
        "matrix": b.matrix,
        "headroom_latency_usd_per_h": b.headroom_latency_usd_per_h,
        "headroom_reserve_usd_per_h": b.headroom_reserve_usd_per_h,
        "usd_per_mtok_output": b.usd_per_mtok_output,
        "usd_per_mtok_by_gpu_time": (
            None
            if by_token is None
            else {"input": by_token.input, "cached": by_token.cached, "output": by_token.output}
        ),
        "usd_per_request": b.usd_per_request,
        "usd_per_1k_requests": b.usd_per_1k_requests,
        "usd_per_1k_requests_in_limits": b.usd_per_1k_requests_in_limits,
        "energy_wh_per_mtok_output": b.energy_wh_per_mtok_output,
        "gco2_per_mtok_output": b.gco2_per_mtok_output,
        "facility_watts": b.facility_watts,
        "paid_gpus": b.paid_gpus,
        "held_gpus": b.held_gpus,
        "purchase_units": b.purchase_units,
        "purchase_unit_gpus": b.purchase_unit_gpus,
        "reclaimable": [
            {
                "cause": r.cause,
                "scale_down_usd_per_h": r.scale_down_usd_per_h,
                "backfill_usd_per_h": r.backfill_usd_per_h,
            }
            for r in b.reclaimable
        ],
        "backfill_credit_usd_per_h": b.backfill_credit_usd_per_h,
        "lines": [
            {
                "name": line.title,
                "dimension": line.dimension.value,
                "usd_per_h": line.usd_per_h,
                "formula": line.formula,
                "source": line.source,
            }
            for line in b.lines
        ],
        "source": b.source.label,
        "notes": list(b.notes),
    }


def classes_asked(workload: Workload) -> list[dict[str, Any]] | None:
    """What the requests of each class ask for; None without classes."""
    if not workload.classes:
        return None
    return class_statistics(workload.requests, workload.class_names, [one.priority for one in workload.classes])


def served_dict(summary: Summary) -> dict[str, Any]:
    """How much a run served, simulated or measured."""
    return {
        "requests": summary.requests,
        "finished": summary.finished,
        "refused_or_unfinished": summary.requests - summary.finished,
        "span_s": summary.span_s,
        "requests_per_s": summary.requests_per_s,
        "output_tokens_per_s": summary.output_tokens_per_s,
    }


def limit_dict(limit: Limit, summary: Summary, margin: float) -> dict[str, Any]:
    """A limit with the predicted number, and the number it is judged by."""
    value = summary.value(limit)
    judged = None if value is None else value * margin
    return {
        "limit": limit.text,
        "key": limit.key,
        "bound": limit.bound,
        "value": finite(value),
        "value_at_confidence": finite(judged),
        "met": limit.holds(judged),
    }


def plan_dict(p: Plan, question: Question) -> dict[str, Any]:
    """A plan whole: deployment, latencies against limits, what binds, memory, steps."""
    trial = p.trial
    fleet = trial.fleet
    return {
        "label": p.label,
        **deployment_dict(trial.deployment),
        "decode_pool": _planned_decode_pool(p),
        "offer": p.offer.name,
        "paid_gpus": p.bill.paid_gpus,
        "usd_per_h": p.usd_per_h,
        "usd_per_mtok_output": p.bill.usd_per_mtok_output,
        "output_tokens_per_s_per_gpu": trial.output_tokens_per_s_per_gpu,
        "limits": [limit_dict(x, trial.summary, trial.margins.get(x.metric, 1.0)) for x in question.limits],
        "confidence": question.confidence,
        "latencies": {key: finite(value) for key, value in trial.summary.values.items()},
        "classes": fared_dicts(trial.summary),
        "capacity": {
            "saturation_requests_per_s": fleet.capacity.saturation_rps,
            "knee_requests_per_s": fleet.capacity.knee_rps,
        },
        "prefix_caching": trial.deployment.knobs.prefix_caching,
        "speculative_mtp": trial.deployment.speculative_mtp,
        "schedule": {
            "reason": fleet.schedule.reason,
            "load_requests_per_s": fleet.schedule.load_rps.tolist(),
            "asked_replicas": fleet.schedule.asked_replicas.tolist(),
        },
        "binds": trial.binds,
        "bottleneck": trial.bottleneck,
        "memory": memory_dict(trial.memory),
        "decode_step": terms_dict(trial.decode_terms),
        "prefill_step": terms_dict(trial.prefill_terms),
        "source": trial.source.label,
        "notes": list(trial.notes),
    }


def plan_row(p: Plan) -> dict[str, Any]:
    """A plan as one flat row: what a table of rivals shows."""
    d, values = p.trial.deployment, p.trial.summary.values
    return {
        "label": p.label,
        "accelerator": d.accelerator.name,
        "offer": p.offer.name,
        "precision": d.precision.name,
        "kv_precision": "fp8" if d.kv_bytes_per_element < 2 else "bf16",
        "engine": d.engine.name,
        "tensor_parallel": d.parallelism.tensor,
        "pipeline_parallel": d.parallelism.pipeline,
        "data_parallel": d.parallelism.data,
        "expert_parallel": d.parallelism.expert,
        "replicas": d.replicas,
        "gpus": d.gpus,
        "decode_pool": None if d.decode is None else _decode_pool_dict(d.decode) | {"offer": p.offers[-1].name},
        "paid_gpus": p.bill.paid_gpus,
        "max_num_batched_tokens": d.knobs.max_num_batched_tokens,
        "max_num_seqs": d.knobs.max_num_seqs,
        "prefix_caching": d.knobs.prefix_caching,
        "speculative_mtp": d.speculative_mtp,
        "output_tokens_per_s_per_gpu": p.trial.output_tokens_per_s_per_gpu,
        "ttft_p99_s": finite(values.get("ttft_p99_s")),
        "itl_p99_s": finite(values.get("itl_p99_s")),
        "usd_per_h": p.usd_per_h,
        "usd_per_mtok_output": p.bill.usd_per_mtok_output,
        "binds": p.trial.binds,
        "source": p.trial.source.label,
    }


def rejection_dict(r: Rejection) -> dict[str, Any]:
    """A rejection with its stage and reason, and the miss where a limit was the reason."""
    miss = None if r.miss is None else miss_dict(r.miss)
    return {"label": r.label, "stage": r.stage, "reason": r.reason, "miss": miss, "usd_per_h": r.usd_per_h}
