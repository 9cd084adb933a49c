"""The explanation of a plan as plain data: prices of limits, corners, what would change it, how sure it is."""

from typing import Any

from trilemma.metrics.limits import Miss
from trilemma.planner.answer import Plan
from trilemma.planner.corners import MEASURES
from trilemma.planner.explanation import (
    Batch,
    Certainty,
    Changes,
    Corner,
    Explanation,
    Lever,
    Levers,
    LimitPrice,
    PriceChange,
    Reason,
    Step,
    TrafficChange,
    WhyNot,
)
from trilemma.report.numbers import finite

UNEXPLAINED = Explanation()


def explanation_dict(found: Explanation | None) -> dict[str, Any]:
    """What is told beside an answer, by the keys it has in the answer's document."""
    e = UNEXPLAINED if found is None else found
    return {
        "stopped_in": e.stopped_in,
        "limit_prices": None if e.limit_prices is None else [limit_price_dict(x) for x in e.limit_prices],
        "corners": [corner_dict(c) for c in e.corners],
        "changes": None if e.changes is None else changes_dict(e.changes),
        "certainty": None if e.certainty is None else certainty_dict(e.certainty),
        "why_not": None if e.why_not is None else why_not_dict(e.why_not),
        "levers": None if e.levers is None else levers_dict(e.levers),
    }


def limit_price_dict(price: LimitPrice) -> dict[str, Any]:
    """What one bound costs."""
    return {
        "bound": price.bound,
        "tried": price.tried,
        "relaxed": None if price.relaxed is None else _step_dict(price.relaxed),
        "furthest": None if price.furthest is None else _step_dict(price.furthest),
        "free": price.free,
    }


def _step_dict(step: Step) -> dict[str, Any]:
    saved = step.saves_usd_per_year
    return {"bound": step.bound, "saves_usd_per_year": saved, **_short(step.plan)}


def _short(plan: Plan) -> dict[str, Any]:
    """A plan by its label and price."""
    return {"label": plan.label, "usd_per_h": plan.usd_per_h}


def corner_dict(corner: Corner) -> dict[str, Any]:
    """A corner with what it reaches and what it gives up."""
    values = corner.plan.trial.summary.values
    return {
        "corner": corner.name,
        **_short(corner.plan),
        "ttft_p99_s": finite(values.get("ttft_p99_s")),
        "itl_p99_s": finite(values.get("itl_p99_s")),
        "output_tokens_per_s_per_gpu": corner.plan.trial.output_tokens_per_s_per_gpu,
        "gives_up": {key: corner.gives_up.get(key) for key in MEASURES},
    }


def changes_dict(changes: Changes) -> dict[str, Any]:
    """What would make another deployment the cheapest."""
    return {
        "price_up": None if changes.price_up is None else _price_dict(changes.price_up),
        "rival_price": None if changes.rival_price is None else _price_dict(changes.rival_price),
        "traffic_down": None if changes.traffic_down is None else _traffic_dict(changes.traffic_down),
        "traffic_up": None if changes.traffic_up is None else _traffic_dict(changes.traffic_up),
    }


def _price_dict(change: PriceChange) -> dict[str, Any]:
    return {
        "offer": change.offer,
        "unit": change.unit,
        "price_now_usd": change.price_now_usd,
        "price_usd": change.price_usd,
        "factor": change.factor,
        "label": change.plan.label,
    }


def _traffic_dict(change: TrafficChange) -> dict[str, Any]:
    return {
        "factor": change.factor,
        "label": change.plan.label,
        "usd_per_h": change.usd_per_h,
        "chosen_usd_per_h": change.chosen_usd_per_h,
    }


def certainty_dict(certainty: Certainty) -> dict[str, Any]:
    """How often the chosen plan stays the cheapest, and how far its prediction may be off."""
    doubt = certainty.doubt
    return {
        "stays_cheapest": certainty.stays_cheapest,
        "plans": [
            {"label": p.label, "probability_cheapest": share}
            for p, share in zip(certainty.plans, certainty.probabilities, strict=True)
        ],
        "interval_over_predicted": {
            name: {"low": low, "high": high}
            for name, (low, high) in (("ttft", doubt.ttft), ("tpot", doubt.tpot), ("capacity", doubt.capacity))
        },
    }


def why_not_dict(found: WhyNot) -> dict[str, Any]:
    """Why the deployments that words pick were not chosen."""
    return {
        "words": list(found.words),
        "matched": found.matched,
        "is_chosen": found.is_chosen,
        "reasons": [reason_dict(r) for r in found.reasons],
    }


def reason_dict(reason: Reason) -> dict[str, Any]:
    """One candidate: the plan it makes, or the stage at which it fell out."""
    plan, out = reason.plan, reason.rejection
    return {
        "label": reason.label,
        "stage": "cost" if out is None else out.stage,
        "reason": "meets the limits" if out is None else out.reason,
        "misses": [] if out is None else [miss_dict(m) for m in out.misses],
        "usd_per_h": (None if out is None else out.usd_per_h) if plan is None else plan.usd_per_h,
        "simulated_after_all": reason.after_all,
        "bill_lines": [] if plan is None else [{"name": x.name, "usd_per_h": x.usd_per_h} for x in plan.bill.lines],
    }


def miss_dict(miss: Miss) -> dict[str, Any]:
    """A missed limit: what was wanted and what came."""
    bound = miss.limit.bound
    return {"limit": miss.limit.text, "bound": bound, "got": finite(miss.got), "excess": finite(miss.excess)}


def levers_dict(found: Levers) -> dict[str, Any]:
    """Every lever alone."""
    return {
        "label": found.chosen.label,
        "rows": [lever_dict(x) for x in found.rows],
        "batches": [batch_dict(x) for x in found.batches],
        "saturating_batch": found.saturating_batch,
        "left_out": list(found.left_out),
    }


def lever_dict(lever: Lever) -> dict[str, Any]:
    """One lever at one setting: a row of the table."""
    trial, plan = lever.trial, lever.plan
    values = {} if trial is None else trial.summary.values
    saturated = None if trial is None else trial.fleet.capacity.saturation_rps
    return {
        "lever": lever.name,
        "setting": lever.setting,
        "is_chosen": lever.is_chosen,
        "keeps_limits": plan is not None,
        "replicas": None if trial is None else trial.deployment.replicas,
        "gpus": None if trial is None else trial.deployment.gpus,
        "usd_per_h": None if plan is None else plan.usd_per_h,
        "usd_per_mtok_output": None if plan is None else plan.bill.usd_per_mtok_output,
        "ttft_p99_s": finite(values.get("ttft_p99_s")),
        "itl_p99_s": finite(values.get("itl_p99_s")),
        "output_tokens_per_s_per_gpu": None if trial is None else trial.output_tokens_per_s_per_gpu,
        "saturation_requests_per_s": finite(saturated),
        "misses": [miss_dict(m) for m in lever.misses],
        "reason": lever.reason,
    }


def batch_dict(batch: Batch) -> dict[str, Any]:
    """One batch size under an endless queue."""
    return {
        "max_num_seqs": batch.max_num_seqs,
        "output_tokens_per_s_per_gpu": batch.output_tokens_per_s_per_gpu,
        "itl_p99_s": finite(batch.itl_p99_s),
        "usd_per_mtok_output": batch.usd_per_mtok_output,
        "misses": [miss_dict(m) for m in batch.misses],
    }
