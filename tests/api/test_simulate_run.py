"""`simulate` looked at closely: why requests wait, the run over time, its files, prefix caching, routers."""

import csv
import json

import numpy as np
import pytest

from tests.planner.questions import BATCH, CLOSED, SMALL, together
from trilemma import api
from trilemma.api import simulating
from trilemma.api.question import ask
from trilemma.api.stage import ROUTINGS, usual_resolution_s
from trilemma.cli.frame import run
from trilemma.errors import InputError
from trilemma.metrics.outcomes import WAIT_REASONS

H100 = {"accelerator": "h100_sxm", "precision": "bf16", "tensor": 1}
CHAT = {
    "workload": {
        "arrivals": {"process": "poisson", "rate": "4 req/s", "requests": 1000},
        "sessions": {
            "turns": {"distribution": "geometric", "mean": 5},
            "user_tokens": {"distribution": "lognormal", "median": 60, "p95": 400},
            "output_tokens": {"distribution": "lognormal", "median": 150, "p95": 600},
            "think_time": {"distribution": "exponential", "mean": "5 s"},
            "system_prompt_tokens": 1200,
        },
    },
    "limits": ["ttft p99 <= 60 s"],
}
LOADS = {"stream": {}, "sessions": CHAT, "batch": BATCH, "closed loop": CLOSED}


def simulated(changes=None, deployment=None, **options):
    return api.simulate(SMALL, deployment=H100 | (deployment or {}), overrides=together(changes or {}), **options)


@pytest.mark.parametrize("changes", LOADS.values(), ids=LOADS)
def test_the_run_over_time_adds_up_to_the_whole(changes):
    result = simulated(changes, {"replicas": 2})
    series = {name: np.array(values) for name, values in result["series"].items() if name != "resolution_s"}
    assert len({values.size for values in series.values()}) == 1
    length_s = series["length_s"]
    for part in ("prefill", "decode", "idle"):
        share = np.average(series[f"{part}_share"], weights=length_s)
        assert share == pytest.approx(result["gpu_time"][part], abs=0.01), part
    output = result["output_tokens_per_s"] * result["span_s"]
    # A prompt's last chunk emits the first output token; every other one is a decode.
    assert (series["decode_tokens_per_s"] * length_s).sum() == pytest.approx(output - result["requests"], rel=1e-6)
    assert series["arrivals"].sum() == series["answers"].sum() == result["finished"]
    running_s = (series["running"] * length_s).sum()
    waiting_s = (series["waiting"] * length_s).sum()
    inside_s = result["latencies"]["e2e_mean_s"] * result["requests"]
    assert running_s + waiting_s == pytest.approx(inside_s, rel=0.1)  # Little's law, seen at the samples
    assert (series["power_w"] > 0).all()
    assert 50 <= length_s.size <= 400


@pytest.mark.parametrize("changes", LOADS.values(), ids=LOADS)
def test_queued_time_has_its_reasons(changes):
    result = simulated(changes)
    assert list(result["queued_time_by_reason"]) == list(WAIT_REASONS)
    assert sum(result["queued_time_by_reason"].values()) == pytest.approx(1)
    assert sum(result["queued_requests_by_reason"].values()) == result["requests"]
    assert 0 <= result["queued_mean_s"] <= result["latencies"]["ttft_mean_s"]
    assert result["queued_requests_by_reason"]["cold_start"] == 0


def test_too_few_seats_are_what_requests_wait_for():
    result = simulated(deployment={"max_num_seqs": 4})
    assert result["queued_time_by_reason"]["seats"] > 0.9
    assert max(result["series"]["running"]) <= 4


def test_files_hold_the_requests_the_intervals_and_a_trace(tmp_path):
    files = api.RunFiles(
        requests=tmp_path / "r.csv", series=tmp_path / "s.csv", trace=tmp_path / "t.json", trace_requests=99
    )
    result = simulated(deployment={"replicas": 3}, files=files, resolution="2 s")
    with files.requests.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == result["requests"]
    assert {row["status"] for row in rows} == {"finished"}
    assert {row["replica"] for row in rows} == {"0", "1", "2"}
    ttft = np.array([float(row["ttft_s"]) for row in rows])
    assert np.percentile(ttft, 99) == pytest.approx(result["latencies"]["ttft_p99_s"])
    queued = np.array([float(row["queued_s"]) for row in rows])
    assert queued.mean() == pytest.approx(result["queued_mean_s"])
    assert (queued <= ttft).all()
    with files.series.open(newline="") as file:
        intervals = list(csv.DictReader(file))
    assert [float(row["time_s"]) for row in intervals] == result["series"]["time_s"]
    assert result["series"]["resolution_s"] == 2
    document = json.loads(files.trace.read_text())
    assert document["otherData"]["requests_drawn"] == "99"
    assert document["otherData"]["scenario"] == "small"
    assert {"running", "waiting", "KV cache", "tokens/s", "power"} <= {
        event["name"] for event in document["traceEvents"]
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.csv", "s.csv", "t.json"]


def test_tables_in_both_binary_formats(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    files = api.RunFiles(requests=tmp_path / "r.parquet", series=tmp_path / "s.arrow")
    result = simulated(CHAT, files=files)
    table = parquet.read_table(files.requests)
    assert table.num_rows == result["requests"]
    assert table.schema.metadata[b"scenario"] == b"small"
    assert len(set(table.column("session").to_pylist())) == 1000
    assert files.series.stat().st_size > 0


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"requests": "missing/r.csv"}, "--requests-file .*missing/r.csv: expected a file to write"),
        ({"series": "s.txt"}, r"--series-file .*s.txt: expected a file ending in \.parquet, \.arrow or \.csv"),
        ({"trace": "."}, "--chrome-trace .*: expected a file to write, found a folder"),
        ({"requests": "a.csv", "series": "a.csv"}, "--series-file .*: expected a file of its own"),
        ({"trace_requests": -1}, "--chrome-trace-requests: expected a whole number from 0, found -1"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_simulated(tmp_path, monkeypatch, files, said):
    monkeypatch.setattr(simulating, "ask", lambda *_, **__: 1 / 0)
    given = {key: tmp_path / value if isinstance(value, str) else value for key, value in files.items()}
    with pytest.raises(InputError, match=said):
        simulated(files=api.RunFiles(**given))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_writes_nothing(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(simulating, "held", interrupted)
    with pytest.raises(KeyboardInterrupt):
        simulated(files=api.RunFiles(requests=tmp_path / "r.csv", trace=tmp_path / "t.json"))
    assert list(tmp_path.iterdir()) == []


def test_prefix_caching_saves_prompt_work_and_shows_its_hits():
    compared = simulated(CHAT, compare="prefix-caching")
    off, on = compared["off"], compared["on"]
    assert (off["deployment"]["prefix_caching"], on["deployment"]["prefix_caching"]) == (False, True)
    assert off["prefix_hit_share"] is None
    assert 0.5 < on["prefix_hit_share"] < 1
    assert on["gpu_time"]["prefill"] < 0.5 * off["gpu_time"]["prefill"]
    assert on["latencies"]["ttft_mean_s"] < off["latencies"]["ttft_mean_s"]
    hits, started = (sum(on["series"][name]) for name in ("hit_tokens", "started_tokens"))
    assert hits / started == pytest.approx(on["prefix_hit_share"])
    assert sum(off["series"]["hit_tokens"]) == 0
    assert on == simulated(CHAT, prefix_caching=True)
    assert off == simulated(CHAT)


def test_sessions_end_at_the_models_context_unless_the_scenario_says_where():
    def longest(**sessions):
        workload = CHAT["workload"] | {"sessions": CHAT["workload"]["sessions"] | sessions}
        asked = ask(SMALL, overrides=together({"workload": workload}))
        requests = asked.question.workload.requests
        return int((requests.prompt_tokens + requests.output_tokens).max()), asked.question.model.max_context_tokens

    many = {"turns": {"distribution": "fixed", "tokens": 500}}
    tokens, context = longest(**many)
    assert 0.9 * context < tokens <= context
    assert 9000 < longest(**many, max_model_len=10_000)[0] <= 10_000


def test_sessions_that_stay_on_their_replica_find_more():
    shares = {
        name: simulated(CHAT, {"replicas": 3}, prefix_caching=True, routing=name)["prefix_hit_share"]
        for name in ("round-robin", "session-sticky", "prefix-aware")
    }
    assert shares["session-sticky"] > shares["round-robin"] + 0.02
    assert shares["prefix-aware"] > shares["round-robin"] + 0.02


@pytest.mark.parametrize("routing", ROUTINGS)
def test_every_router_serves_everyone_and_again_the_same_way(routing):
    options = {"routing": routing, "prefix_caching": routing == "prefix-aware"}
    first, again = (simulated(CHAT, {"replicas": 3}, **options) for _ in range(2))
    assert first == again
    assert first["finished"] == first["requests"]
    assert first["deployment"]["routing"] == routing


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_prefix_blocks_fit_every_engine(engine):
    result = simulated(CHAT, {"engine": engine}, prefix_caching=True)
    assert 0.5 < result["prefix_hit_share"] < 1


@pytest.mark.parametrize(
    ("engine", "scheduler"), [("vllm", "vllm"), ("sglang", "sglang"), ("trtllm", "trtllm_no_evict")]
)
def test_each_engine_decides_by_its_own_rules(engine, scheduler):
    result = simulated(deployment={"engine": engine})
    assert result["deployment"]["scheduler"] == scheduler
    assert result["finished"] == result["requests"]
    assert any("max_tokens" in note for note in result["notes"]) == (engine != "vllm")


def test_decodes_stall_behind_prefills_under_sglang_alone():
    gaps = {e: simulated(deployment={"engine": e})["latencies"]["itl_p99_s"] for e in ("vllm", "sglang", "trtllm")}
    assert gaps["sglang"] > 1.5 * max(gaps["vllm"], gaps["trtllm"])


def test_what_clients_ask_for_takes_kv_that_they_do_not_use():
    trtllm = {"engine": "trtllm", "accelerator": "l40s", "precision": "fp8"}
    flood = {"workload.rate_scale": 40}
    asked, got = (simulated(flood, trtllm, max_tokens=tokens) for tokens in (8000, None))
    assert asked["queued_mean_s"] > got["queued_mean_s"]
    assert asked["queued_time_by_reason"]["kv"] > got["queued_time_by_reason"]["kv"]
    assert not any("max_tokens" in note for note in asked["notes"])
    used = simulated(flood, trtllm, capacity_policy="max-utilization")
    assert used["deployment"]["scheduler"] == "trtllm_max_utilization"
    assert used["queued_time_by_reason"]["kv"] <= got["queued_time_by_reason"]["kv"]
    assert got["preemptions"] == asked["preemptions"] == 0


def test_attention_dp_ranks_step_together_and_share_the_load():
    mixture = {"model": "deepseek-ai/DeepSeek-V3", "workload.rate_scale": 1}
    node = {"accelerator": "h200_sxm", "precision": "fp8", "tensor": 1, "data": 8, "expert": 8}
    results = {e: simulated(mixture, node | {"engine": e}) for e in ("vllm", "sglang", "trtllm")}
    for engine, result in results.items():
        assert result["deployment"]["data_parallel"] == result["deployment"]["gpus"] == 8, engine
        assert result["finished"] == result["requests"]
        assert any("ranks step together" in note for note in result["notes"])
        assert max(result["series"]["running"]) > 8
        assert 0 < max(result["series"]["kv_share"]) <= result["peak_kv_share"] <= 1
    with pytest.raises(InputError, match="--routing: expected round-robin or session-sticky beside attention-DP ranks"):
        simulated(mixture, node, routing="least-outstanding")


def test_scheduling_one_step_ahead_makes_an_arrival_wait_longer():
    plain, ahead = (simulated(async_scheduling=flag) for flag in (False, True))
    assert (plain["deployment"]["async_scheduling"], ahead["deployment"]["async_scheduling"]) == (False, True)
    assert ahead["queued_mean_s"] > plain["queued_mean_s"]


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        (
            {},
            {"capacity_policy": "no-evict"},
            "--capacity-policy: expected one of guaranteed-no-evict, max-utilization",
        ),
        ({}, {"capacity_policy": "max-utilization"}, "--capacity-policy: expected TensorRT-LLM, found an engine witho"),
        ({}, {"max_tokens": 100}, "--max-tokens: expected SGLang, or TensorRT-LLM's guaranteed-no-evict, found a sche"),
        ({}, {"max_tokens": 0}, "--max-tokens: expected a whole number of at least 1, found 0"),
        ({}, {"routing": "round-robbin"}, "--routing: expected one of .* \\(did you mean 'round-robin'\\?\\)"),
        (
            {},
            {"routing": "prefix-aware"},
            "--routing: expected prefix caching on beside prefix-aware routing, found ca",
        ),
        (CHAT, {"routing": "prefix-aware", "compare": "prefix-caching"}, "--routing: expected prefix caching on"),
        ({}, {"prefix_caching": True}, "--prefix-caching: expected a workload that names its prefix blocks"),
        ({}, {"compare": "prefix-caching"}, "--compare: expected a workload that names its prefix blocks"),
        ({}, {"compare": "routing"}, "--compare: expected one of prefix-caching, found 'routing'"),
        ({}, {"resolution": "10"}, "--resolution: expected a time with a unit"),
        ({}, {"resolution": "0 s"}, "--resolution: expected at least 1 us, found '0 s'"),
    ],
)
def test_what_cannot_be_meant_is_named(changes, options, said):
    with pytest.raises(InputError, match=said):
        simulated(changes, **options)


def test_a_comparison_writes_no_files(tmp_path):
    with pytest.raises(InputError, match="--compare: expected no files of a run beside it"):
        simulated(CHAT, compare="prefix-caching", files=api.RunFiles(requests=tmp_path / "r.csv"))


def test_the_command_prints_keys_and_then_the_run_over_time(capsys):
    assert run(["simulate", str(SMALL), "--accelerator", "h100_sxm", "--precision", "bf16", "--tp", "1", "-q"]) == 0
    table, _, over_time = capsys.readouterr().out.partition("\n\nOver time\n")
    assert "queued_time_by_reason.seats" in table
    assert len(over_time.splitlines()) <= 2 + 12
    assert over_time.splitlines()[0].split()[:3] == ["from", "running", "waiting"]


@pytest.mark.parametrize("span_s", [1e-9, 0.5, 1.0, 99.0, 3600.0, 86400.0])
def test_the_usual_resolution_gives_about_a_hundred_intervals(span_s):
    resolution_s = usual_resolution_s(span_s)
    assert span_s / resolution_s <= 100 * (1 + 1e-9)
    assert span_s < 0.1 or span_s / resolution_s >= 40
