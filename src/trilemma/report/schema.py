"""The JSON Schema of a plan's answer: `python -m trilemma.report.schema > docs/answer.schema.json` writes it anew.

Written by hand, key by key, so that a change to the answer is a change somebody made here too: nothing is optional
and nothing else is allowed. What does not exist is null, never left out.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any, Final

from trilemma.catalogue.figure import Source
from trilemma.report.document import FORMAT

Schema = dict[str, Any]

USES: Final = ("useful", "waste", "headroom", "idle", "stranded")
DIMENSIONS: Final = ("capital", "operational", "engineering")
STAGES: Final = ("support", "memory", "bound", "limits", "size", "cost")
RESOURCES_NOTE: Final = "a resource such as HBM bandwidth, FLOPs or link"


def _text(description: str = "", *, choices: tuple[str, ...] = ()) -> Schema:
    return _said({"type": "string"} | ({"enum": list(choices)} if choices else {}), description)


def _number(description: str = "", **bounds: float) -> Schema:
    return _said({"type": "number", **bounds}, description)


def _amount(description: str = "") -> Schema:
    return _number(description, minimum=0)


def _count(description: str = "", *, least: int = 0) -> Schema:
    return _said({"type": "integer", "minimum": least}, description)


def _list(of: Schema, description: str = "") -> Schema:
    return _said({"type": "array", "items": of}, description)


def _object(keys: Mapping[str, Schema], description: str = "") -> Schema:
    """All of `keys` and no other."""
    closed = {"type": "object", "properties": dict(keys), "required": list(keys), "additionalProperties": False}
    return _said(closed, description)


def _or_null(schema: Schema, description: str = "") -> Schema:
    if set(schema) <= {"type", "minimum", "description"} and isinstance(schema["type"], str):
        return _said(schema | {"type": [schema["type"], "null"]}, description)
    return _said({"anyOf": [schema, {"type": "null"}]}, description)


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _said(schema: Schema, description: str) -> Schema:
    return schema | ({"description": description} if description else {})


def answer_schema() -> Schema:
    """The schema (draft 2020-12) of what `trilemma plan -o json` prints.

    >>> answer_schema()["properties"]["use_view"]["anyOf"][0]
    {'$ref': '#/$defs/use_view'}
    """
    answer = _object(
        {
            "format": {"const": FORMAT, "description": "Version of this format."},
            "name": _text("The scenario's name."),
            "versions": _versions(),
            "scenario": {
                "type": "object",
                "description": "The scenario with every flag and default in it: scenario.schema.json.",
            },
            "workload": _workload(),
            "counts": _counts(),
            "chosen": _or_null(_ref("plan"), "The cheapest plan that keeps every limit."),
            "bill": _or_null(_ref("bill"), "The chosen plan's bill."),
            "use_view": _or_null(_ref("use_view"), "The bill by what it bought, $/h."),
            "usd_per_mtok_output": _or_null(_amount(), "Total over output tokens inside the limits, $ a million."),
            "frontier": _list(_ref("plan_row"), "Plans that none beats on tokens/s/GPU, TTFT and $/Mtoken at once."),
            "plans": _list(_ref("plan_row"), "Every plan that keeps the limits, cheapest first."),
            "rejected": _list(_ref("rejection"), "Everything else, with the reason."),
            "warnings": _list(_text(), "Notices about the input."),
        }
    )
    definitions = {
        "plan": _plan(),
        "plan_row": _plan_row(),
        "limit": _limit(),
        "memory": _memory(),
        "step": _step(),
        "bill": _bill(),
        "use_view": _object({use: _amount() for use in USES}, "$/h; sums to the bill's total."),
        "rejection": _rejection(),
        "lengths": _lengths(),
        "source": _text("How the numbers are known, the weakest part counting.", choices=_sources()),
    }
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "trilemma answer"}
    return head | answer | {"$defs": definitions}


def _sources() -> tuple[str, ...]:
    return tuple(source.label for source in Source)


def _versions() -> Schema:
    return _object(
        {
            "trilemma": _text(),
            "catalogue_sha256": _said(
                {"type": "string", "pattern": "^[0-9a-f]{64}$"}, "Digest of every catalogue row."
            ),
            "engine": _or_null(_text("Engine and version the scheduler and flags are those of.")),
            "seed": _count(),
            "as_of": _or_null(_text(), "The ISO date prices are aged against."),
        },
        "What reproduces the answer, beside the scenario.",
    )


def _workload() -> Schema:
    window = _object(
        {
            "window_s": _amount(),
            "peak_rate_per_s": _or_null(_amount()),
            "dispersion": _or_null(_amount(), "Variance over mean of counts per window; 1 for Poisson."),
        }
    )
    prefix = _object(
        {
            "block_tokens": _count(least=1),
            "distinct_blocks": _count(),
            "hit_token_share": _number(minimum=0, maximum=1),
            "requests_with_hit_share": _number(minimum=0, maximum=1),
        }
    )
    return _object(
        {
            "label": _text("The trace's name, or what draws the requests."),
            "sizing_requests_per_s": _or_null(_amount(), "Load of the busiest hour; null for a job or a closed loop."),
            "requests": _count(least=1),
            "duration_s": _amount(),
            "mean_rate_per_s": _or_null(_amount()),
            "windows": _list(window, "The busiest stretch and the unevenness, by length of the window."),
            "interarrival_cv": _or_null(_amount(), "Standard deviation over mean of the gaps; 1 for Poisson."),
            "prompt": _ref("lengths"),
            "output": _ref("lengths"),
            "prompt_output_ratio": _amount(),
            "input_tokens_per_s": _or_null(_amount()),
            "output_tokens_per_s": _or_null(_amount()),
            "sessions": _or_null(_count()),
            "prefix": _or_null(prefix, "Reuse of prompt prefixes, where the trace has block ids."),
            "concurrency": _or_null(_count(), "Clients of a closed loop."),
            "kind": _object({"name": _text(choices=("latency-sensitive", "throughput-sensitive")), "reason": _text()}),
        }
    )


def _lengths() -> Schema:
    keys = {"total": _count(), "mean": _amount()} | {p: _amount() for p in ("p50", "p90", "p95", "p99")}
    return _object(keys | {"max": _count()}, "Tokens of a request.")


def _counts() -> Schema:
    return _object(
        {
            "shapes": _count("Deployments looked at, replicas and offers left out."),
            "candidates": _count("The same at each of their offers."),
            "simulated": _count("Deployments simulated."),
            "sized": _count("Of those, deployments sized and run on the whole workload."),
            "simulations": _count("Single simulations."),
        }
    )


def _plan() -> Schema:
    deployment = {
        "label": _text("The plan in one line."),
        "model": _text(),
        "accelerator": _text(),
        "engine": _text(),
        "precision": _text("Format of the weights."),
        "kv_precision": _text(choices=("bf16", "fp8")),
        "tensor_parallel": _count(least=1),
        "pipeline_parallel": _count(least=1),
        "data_parallel": _count(least=1),
        "expert_parallel": _count(least=1),
        "max_num_batched_tokens": _count(least=1),
        "max_num_seqs": _count(least=1),
        "max_model_len": _or_null(_count(least=1), "The longest request, prompt and output."),
        "replicas": _count(least=1),
        "gpus_per_replica": _count(least=1),
        "gpus": _count("GPUs of all replicas at the peak.", least=1),
    }
    rates = {
        "offer": _text("How the nodes are obtained, by its name in the catalogue."),
        "paid_gpus": _amount("GPUs paid for, averaged over the period."),
        "usd_per_h": _amount("Capital, operational and engineering."),
        "usd_per_mtok_output": _or_null(_amount()),
        "output_tokens_per_s_per_gpu": _amount("At the sizing load."),
    }
    latencies = {
        "type": "object",
        "description": "Statistics of the simulated run, seconds; goodput is a share of requests.",
        "patternProperties": {
            r"^(ttft|itl|tpot|e2e)_(mean|p[0-9.]+)_s$": _or_null(_amount()),
            r"^(makespan_s|goodput_share)$": _or_null(_amount()),
        },
        "additionalProperties": False,
    }
    capacity = {
        "saturation_requests_per_s": _or_null(_amount(), "One replica with an endless queue."),
        "knee_requests_per_s": _or_null(_amount(), "The most one replica takes inside the limits."),
    }
    schedule = {
        "reason": _text("What the shape of the day rests on."),
        "load_requests_per_s": _list(_amount()),
        "asked_replicas": _list(_amount()),
    }
    return _object(
        deployment
        | rates
        | {
            "limits": _list(_ref("limit")),
            "confidence": _number("Probability that each latency stays inside its limit.", minimum=0.5, maximum=1),
            "latencies": latencies,
            "capacity": _object(capacity),
            "schedule": _object(schedule, "The priced period, interval by interval."),
            "binds": _text("What keeps a replica from taking more load."),
            "bottleneck": _text(f"What a decode step at the knee waits for: {RESOURCES_NOTE}."),
            "memory": _ref("memory"),
            "decode_step": _ref("step"),
            "prefill_step": _ref("step"),
            "source": _ref("source"),
            "notes": _list(_text()),
            "launch": _text("Shell commands that start it."),
        }
    )


def _plan_row() -> Schema:
    plan = _plan()["properties"]
    names = (
        "label", "accelerator", "offer", "precision", "kv_precision", "engine", "tensor_parallel", "replicas", "gpus",
        "paid_gpus", "max_num_batched_tokens", "max_num_seqs", "output_tokens_per_s_per_gpu", "usd_per_h",
        "usd_per_mtok_output", "binds", "source",
    )  # fmt: skip
    latencies = {name: _or_null(_amount()) for name in ("ttft_p99_s", "itl_p99_s")}
    return _object({name: plan[name] for name in names} | latencies, "A plan as one row of a table.")


def _limit() -> Schema:
    return _object(
        {
            "limit": _text("As the scenario says it, normalised."),
            "key": _text("The bounded number among the latencies."),
            "bound": _amount("Seconds, or a share for goodput."),
            "value": _or_null(_amount(), "What is predicted."),
            "value_at_confidence": _or_null(_amount(), "What is compared with the bound."),
            "met": {"type": "boolean"},
        }
    )


def _memory() -> Schema:
    names = ("hbm", "weight", "activation", "framework", "kv_pool")
    keys = {f"{name}_bytes": _amount() for name in names} | {"kv_bytes_per_token_per_gpu": _amount()}
    counts = {name: _count() for name in ("kv_capacity_tokens_per_replica", "num_gpu_blocks")}
    return _object(keys | counts, "The fullest GPU of a replica.")


def _step() -> Schema:
    term = _object({"term": _text(), "ms": _amount(), "binds": _text()})
    return _object(
        {"total_ms": _amount(), "bottleneck": _text(f"What it waits for: {RESOURCES_NOTE}."), "terms": _list(term)},
        "One forward pass by what takes the time.",
    )


def _bill() -> Schema:
    line = _object(
        {
            "name": _text(),
            "dimension": _text(choices=DIMENSIONS),
            "usd_per_h": _amount(),
            "formula": _text("How the number comes about."),
            "source": _text("The price or rate behind it, with range, date and reference."),
        }
    )
    reclaimable = _object(
        {"cause": _text(), "scale_down_usd_per_h": _amount(), "backfill_usd_per_h": _amount()},
        "What unused capacity could give back, one way or the other.",
    )
    by_gpu_time = _object(
        {kind: _or_null(_amount()) for kind in ("input", "cached", "output")},
        "Splits the total by GPU time, $ a million; input: prompt tokens not found in the prefix cache.",
    )
    return _object(
        {
            "offer": _text(),
            **{f"{dimension}_usd_per_h": _amount() for dimension in DIMENSIONS},
            "total_usd_per_h": _amount("Capital + operational + engineering."),
            "opportunity_usd_per_h": _amount(
                "The part of capital and operational that bought nothing; inside the sum."
            ),
            "use_view": _ref("use_view"),
            "matrix": _object({dimension: _ref("use_view") for dimension in DIMENSIONS}, "Dimension by use, $/h."),
            "headroom_latency_usd_per_h": _or_null(_amount(), "Headroom that is the price of the latency limits."),
            "headroom_reserve_usd_per_h": _or_null(_amount(), "Headroom that is margin, redundancy and rounding."),
            "usd_per_mtok_output": _or_null(_amount()),
            "usd_per_mtok_by_gpu_time": _or_null(by_gpu_time),
            "usd_per_request": _or_null(_amount()),
            "usd_per_1k_requests": _or_null(_amount()),
            "usd_per_1k_requests_in_limits": _or_null(_amount()),
            "energy_wh_per_mtok_output": _or_null(_amount(), "At the meter; rented, not billed."),
            "gco2_per_mtok_output": _or_null(_amount(), "Grams of CO2 of that energy."),
            "facility_watts": _or_null(_amount(), "Mean power with PUE."),
            "paid_gpus": _amount(),
            "held_gpus": _amount(),
            "purchase_units": _count("Whole units paid for at the peak."),
            "purchase_unit_gpus": _count(least=1),
            "reclaimable": _list(reclaimable),
            "backfill_credit_usd_per_h": _or_null(
                _amount(), "What batch work in idle GPU time is worth to the user, outside the sum."
            ),
            "lines": _list(line),
            "source": _ref("source"),
            "notes": _list(_text()),
        }
    )


def _rejection() -> Schema:
    miss = _object({"limit": _text(), "bound": _amount(), "got": _or_null(_amount()), "excess": _or_null(_amount())})
    return _object(
        {
            "label": _text("The candidate in one line."),
            "stage": _text("How far it came.", choices=STAGES),
            "reason": _text(),
            "miss": _or_null(miss, "The limit it misses, where a limit is the reason; excess as a ratio of the bound."),
            "usd_per_h": _or_null(_amount(), "Its price, or for stage bound the least it can cost."),
        }
    )


def schema_text() -> str:
    """The schema as docs/answer.schema.json holds it."""
    return json.dumps(answer_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
