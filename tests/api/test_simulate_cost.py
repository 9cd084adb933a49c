"""`simulate` and `cost`: one deployment, the same numbers as in a plan that chose it."""

import json

import pytest

from tests.planner.questions import BATCH, CLOSED, DAY, MEAN, SMALL, WORKLOADS, answer, together
from trilemma import api
from trilemma.cli.frame import run
from trilemma.cost.fleet import CHARGES_ALL_DAY
from trilemma.errors import InputError, UnsupportedError

USES = ["useful", "waste", "headroom", "idle", "stranded"]
H100 = {"accelerator": "h100_sxm", "precision": "bf16", "tensor": 1}


def as_flags(plan):
    """The deployment of a plan in the words of `simulate` and `cost`."""
    d = plan.trial.deployment
    return {
        "accelerator": d.accelerator.name, "engine": d.engine.name, "precision": d.precision.name,
        "kv_precision": "fp8" if d.kv_bytes_per_element < 2 else "bf16", "tensor": d.parallelism.tensor,
        "replicas": d.replicas, "max_num_batched_tokens": d.knobs.max_num_batched_tokens,
        "max_num_seqs": d.knobs.max_num_seqs,
    }  # fmt: skip


@pytest.mark.parametrize("changes", [*WORKLOADS.values(), MEAN], ids=[*WORKLOADS, "mean day"])
def test_a_planned_deployment_simulates_and_costs_as_planned(changes):
    chosen = answer(changes).chosen
    result = api.simulate(SMALL, deployment=as_flags(chosen), overrides=together(changes))
    assert result["latencies"] == dict(chosen.trial.summary.values)
    assert all(limit["met"] for limit in result["limits"])
    assert result["deployment"]["replicas"] == chosen.trial.deployment.replicas
    assert result["output_tokens_per_s_per_gpu"] == chosen.trial.output_tokens_per_s_per_gpu
    assert result["refused_or_unfinished"] == 0
    assert sum(result["gpu_time"].values()) == pytest.approx(1)
    for name in ("saturation_requests_per_s_per_replica",):
        assert result[name] >= result["requests_per_s"] / result["deployment"]["replicas"] * 0.999
    bill = api.cost(SMALL, deployment=as_flags(chosen), offer=chosen.offer.name, overrides=together(changes))
    follows_the_day = "workload.profile" in changes and chosen.offer.kind not in CHARGES_ALL_DAY
    assert follows_the_day or bill["total_usd_per_h"] == pytest.approx(chosen.usd_per_h, abs=0.005)


@pytest.mark.parametrize("kind", ["owned", "on-demand", "reserved-1y", "reserved-3y", "spot"])
@pytest.mark.parametrize("changes", [DAY, BATCH, CLOSED], ids=["day", "batch", "closed loop"])
def test_a_deployment_has_a_price_under_each_kind_of_offer(kind, changes):
    bill = api.cost(SMALL, deployment=H100 | {"replicas": 3}, offer=kind, overrides=together(changes))
    assert bill["offer"] == f"h100_sxm/{kind}"
    assert list(bill["use_view"]) == USES
    total = bill["total_usd_per_h"]
    assert total > 0
    assert sum(bill["use_view"].values()) == pytest.approx(total, abs=0.005)
    assert sum(line["usd_per_h"] for line in bill["lines"]) == pytest.approx(total, abs=0.005)
    by_dimension = {name: bill[f"{name}_usd_per_h"] for name in ("capital", "operational", "engineering")}
    assert sum(by_dimension.values()) == pytest.approx(total, abs=0.005)
    for name, usd in by_dimension.items():
        assert sum(x["usd_per_h"] for x in bill["lines"] if x["dimension"] == name) == pytest.approx(usd, abs=0.005)
    assert (bill["capital_usd_per_h"] > 0) == (kind == "owned")
    assert bill["opportunity_usd_per_h"] <= total
    assert bill["deployment"]["gpus"] == 3
    assert bill["paid_gpus"] >= bill["held_gpus"]


def test_without_an_offer_the_cheapest_of_the_scenario_is_taken():
    offers = {"space.offers": ["owned", "on-demand", "reserved-3y"], "space.accelerators": ["h100_sxm"]}
    kinds = [
        api.cost(SMALL, deployment=H100, offer=k)["total_usd_per_h"] for k in ("owned", "on-demand", "reserved-3y")
    ]
    assert api.cost(SMALL, deployment=H100, overrides=offers)["total_usd_per_h"] == min(kinds)
    assert api.cost(SMALL, deployment=H100)["total_usd_per_h"] == min(kinds[:2])


def test_more_replicas_answer_no_later_and_cost_no_less():
    few, many = (api.simulate(SMALL, deployment=H100 | {"replicas": n}) for n in (1, 4))
    for key in ("ttft_p99_s", "ttft_mean_s", "e2e_p95_s", "itl_p99_s"):
        assert many["latencies"][key] <= few["latencies"][key]
    assert few["gpu_time"]["idle"] < many["gpu_time"]["idle"]
    for offer in ("owned", "on-demand"):
        less, more = (api.cost(SMALL, deployment=H100 | {"replicas": n}, offer=offer) for n in (1, 9))
        assert less["total_usd_per_h"] < more["total_usd_per_h"]
        assert (less["purchase_units"], more["purchase_units"]) == (1, 2)


def test_a_limit_says_what_it_was_judged_by():
    seen = api.simulate(SMALL, deployment=H100)["latencies"]
    bound_ms = round(1e3 * (seen["ttft_p50_s"] * seen["ttft_p99_s"]) ** 0.5)  # half keep it, and not all
    limits = [f"ttft p99 <= {bound_ms} ms", "goodput >= 1%"]
    result = api.simulate(SMALL, deployment=H100, overrides={"limits": limits})
    ttft, goodput = result["limits"]
    assert (ttft["met"], goodput["met"]) == (False, True)
    assert ttft["value"] == result["latencies"]["ttft_p99_s"] > ttft["bound"] == pytest.approx(bound_ms / 1e3)
    assert ttft["value_at_confidence"] > ttft["value"]
    assert goodput["value_at_confidence"] == goodput["value"] == result["latencies"]["goodput_share"]
    median = api.simulate(SMALL, deployment=H100, overrides={"confidence": 0.5})["limits"]
    assert all(limit["value_at_confidence"] == limit["value"] for limit in median)


def test_check_turns_a_missed_limit_into_an_exit_code(capsys):
    command = [
        "simulate",
        str(SMALL),
        "--accelerator",
        "h100_sxm",
        "--tp",
        "1",
        "--precision",
        "bf16",
        "-q",
        "-o",
        "json",
    ]
    assert run([*command, "--replicas", "4", "--check"]) == 0
    assert all(limit["met"] for limit in json.loads(capsys.readouterr().out)["limits"])
    assert run([*command, "--set", "limits=[ttft p99 <= 50 ms]", "--check"]) == 4
    out, err = capsys.readouterr()
    assert json.loads(out)["limits"][0]["met"] is False
    assert err == "error: limits missed: ttft p99 <= 50 ms\n"
    assert run([*command, "--set", "limits=[ttft p99 <= 50 ms]"]) == 0


def test_what_neither_flag_nor_scenario_says_is_the_first_that_fits():
    result = api.simulate(SMALL, deployment={}, overrides={"model": "Qwen/Qwen3-32B", "space.accelerators": ["l40s"]})
    deployment = result["deployment"]
    assert deployment["accelerator"] == "l40s"
    assert deployment["precision"] == "bf16"
    assert deployment["tensor_parallel"] == 2  # one card is too small
    assert deployment["replicas"] == 1
    given = api.simulate(SMALL, deployment={"max_num_batched_tokens": 512, "max_num_seqs": 64, "kv_precision": "fp8"})
    shown = given["deployment"]
    assert (shown["max_num_batched_tokens"], shown["max_num_seqs"], shown["kv_precision"]) == (512, 64, "fp8")


@pytest.mark.parametrize(
    ("deployment", "offer", "error", "said"),
    [
        ({"accelerator": "h101"}, None, InputError, "--accelerator: expected the name of an accelerator"),
        ({"engine": "tgi"}, None, InputError, "--engine: expected the name of an engine"),
        ({"precision": "fp5"}, None, InputError, "--precision: expected the name of a precision"),
        ({"kv_precision": "int3"}, None, InputError, "--kv-precision: expected one of"),
        (H100, "sport", InputError, "--offer: expected one of"),
        (H100, "l40s/on-demand", InputError, "--offer: expected an offer of h100_sxm"),
        (H100, "h100_sxm/gift", InputError, "--offer"),
        (H100 | {"tensor": 3}, None, UnsupportedError, "heads do not divide by tensor parallelism 3"),
        (H100 | {"tensor": 16}, None, UnsupportedError, "TP16 exceeds the link domain of 8 GPUs"),
        (H100 | {"data": 2}, None, UnsupportedError, "attention data parallelism 2 needs a mixture of experts"),
        (H100 | {"pipeline": 1000}, None, UnsupportedError, "1000 pipeline stages are more than the model's"),
        (H100 | {"engine": "trtllm", "accelerator": "mi300x"}, None, UnsupportedError, "does not run on AMD"),
    ],
)
def test_what_cannot_be_is_refused(deployment, offer, error, said):
    with pytest.raises(error) as raised:
        api.cost(SMALL, deployment=deployment, offer=offer)
    assert said in str(raised.value)


def test_pipeline_stages_are_simulated_and_priced():
    """Two stages of one GPU: both GPUs are paid, and a token passes through both."""
    result, alone = (api.simulate(SMALL, deployment=H100 | {"pipeline": stages}) for stages in (2, 1))
    assert (result["deployment"]["pipeline_parallel"], result["deployment"]["gpus"]) == (2, 2)
    assert result["finished"] == alone["finished"] == result["requests"]
    assert result["latencies"]["tpot_mean_s"] > 0
    bill = api.cost(SMALL, deployment=H100 | {"pipeline": 2}, offer="on-demand")
    assert bill["deployment"]["gpus"] == 2


def test_a_model_too_large_is_refused_for_its_memory():
    with pytest.raises(UnsupportedError, match="GiB too much"):
        api.simulate(SMALL, deployment={"accelerator": "l40s"}, overrides={"model": "meta-llama/Meta-Llama-3.1-405B"})


def test_progress_runs_to_its_end():
    seen = []
    api.simulate(SMALL, deployment=H100, progress=lambda done, total, now: seen.append((done, total)))
    assert seen[0][0] == 0
    assert seen[-1] == (3, 3)
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"replicas": 81}, "--replicas: expected at most one for each of the 80 clients, found 81"),
        ({"replicas": 0}, "--replicas: expected a whole number of at least 1, found 0"),
        ({"tensor_parallel": 4}, "deployment: expected keys among accelerator, engine, "),
    ],
)
def test_what_nobody_can_mean_is_refused_before_it_is_simulated(changes, said):
    with pytest.raises(InputError) as raised:
        api.simulate(SMALL, deployment=H100 | changes, overrides=together(CLOSED))
    assert said in str(raised.value)
