"""`plan` from a scenario file: traces of the user's own, notices, seeds, and what is stored to run it again."""

import json

import pytest
import yaml

from tests.planner.questions import CLOSED, SMALL, together
from trilemma import api
from trilemma.cli.frame import run
from trilemma.errors import InputError

SPACE = {"accelerators": ["h100_sxm"], "offers": ["owned"], "precisions": ["bf16"], "tensor_parallel": [1]}


def conversation(turns=40, gap_ms=250, length=900):
    """Lines of a Mooncake trace: conversations that share a system prompt of two blocks and grow by one a turn."""
    lines = []
    for i in range(turns):
        blocks = [0, 1, *range(100 + i, 100 + i + (length - 1) // 512 - 1)]
        lines.append({"timestamp": gap_ms * i, "input_length": length + i, "output_length": 30 + i, "hash_ids": blocks})
    return "".join(json.dumps(line) + "\n" for line in lines)


def written(folder, trace, **changes):
    """A scenario file beside a trace file."""
    (folder / "trace.jsonl").write_text(trace)
    scenario = {"version": 1, "model": "Qwen/Qwen3-8B", "workload": {"trace": "trace.jsonl"}, "space": SPACE}
    scenario |= {"limits": ["ttft p99 <= 1 s"], "as_of": "2026-11-01"} | changes
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(scenario))
    return path


def test_a_mooncake_trace_of_the_users_own_is_planned(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("trilemma.api.pool.cores", lambda: 1)
    path = written(tmp_path, conversation())
    report = api.plan(path, processes=1)
    document = report.to_dict()
    assert document["name"] == "mine"
    assert document["workload"]["requests"] == 4000
    assert document["workload"]["prefix"]["block_tokens"] == 512
    assert document["workload"]["prefix"]["hit_token_share"] > 0.5
    assert document["chosen"]["max_model_len"] == 939 + 69
    assert document["warnings"] == ["40 requests are few for queues and tails: repeated 100 times"]
    assert run(["plan", str(path), "-q", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == document


def test_times_recorded_in_bins_are_spread_with_a_notice(tmp_path):
    rows = [json.loads(line) | {"timestamp": 3000 * (i // 5)} for i, line in enumerate(conversation().splitlines())]
    path = written(tmp_path, "".join(json.dumps(row) + "\n" for row in rows))
    with pytest.warns(UserWarning, match="each is spread over its bin"):
        report = api.plan(path, processes=1)
    assert "each is spread over its bin (seed 0)" in report.answer.warnings[0]
    with pytest.warns(UserWarning, match="seed 7"):
        other = api.plan(path, processes=1, seed=7)
    assert other.answer.chosen.trial.summary != report.answer.chosen.trial.summary
    assert other.to_dict()["versions"]["seed"] == other.to_dict()["scenario"]["seed"] == 7


def test_requests_beyond_the_models_context_are_told(tmp_path):
    path = written(tmp_path, conversation(length=3000), model="meta-llama/Llama-2-7b-hf")
    assert not any("context" in text for text in api.plan(path, processes=1).answer.warnings)
    longer = written(tmp_path, conversation(length=4050), model="meta-llama/Llama-2-7b-hf")
    with pytest.warns(UserWarning, match="exceed the 4,096 tokens of context that meta-llama/Llama-2-7b-hf is made"):
        report = api.plan(longer, processes=1)
    assert report.answer.warnings[-1].startswith("3,100 of 4,000 requests exceed")
    assert report.to_dict()["warnings"] == list(report.answer.warnings)


def test_prices_too_old_are_told(tmp_path):
    path = written(tmp_path, conversation(), as_of="2029-01-01")
    with pytest.warns(UserWarning, match="days before 2029-01-01"):
        api.plan(path, processes=1)


def test_the_stored_scenario_gives_the_same_answer(tmp_path):
    first = api.plan(SMALL, overrides={"sizing.headroom": "40%", "seed": 5}, processes=1).to_dict()
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(first["scenario"]))
    assert api.plan(again, processes=1).to_dict() == first


def test_flags_go_over_the_file():
    report = api.plan(SMALL, overrides={"name": "other", "space.accelerators": "[l40s]"}, seed=3, processes=1)
    assert report.question.name == "other"
    assert report.question.seed == 3
    assert {p.trial.deployment.accelerator.name for p in report.answer.plans} == {"l40s"}


def test_the_flags_given_are_left_as_they_are():
    given = {"workload": {"trace": "azure_2023_conv", "window": {"end": "2 min"}}, "workload.window.end": "1 min"}
    report = api.plan(SMALL, overrides=given, processes=1)
    assert report.scenario["workload"]["window"]["end"] == "1 min"
    assert given["workload"]["window"] == {"end": "2 min"}


def test_progress_counts_up_to_the_end(monkeypatch):
    monkeypatch.setattr("trilemma.planner.plan.WAVE", 3)
    seen = []
    api.plan(SMALL, processes=1, limit_prices=False, progress=lambda done, total, now: seen.append((done, total, now)))
    assert seen[-1][0] == seen[-1][1] == 8
    assert all(0 <= done <= total for done, total, _ in seen)
    assert [done for done, _, now in seen if now == "simulating"] == list(range(1, 9))


def test_a_closed_loop_is_told_by_its_clients():
    workload = api.plan(SMALL, overrides=together(CLOSED), processes=1).to_dict()["workload"]
    assert workload["concurrency"] == 80
    assert workload["mean_rate_per_s"] is None
    assert workload["sizing_requests_per_s"] is None


def test_a_space_without_anything_to_buy_is_an_error():
    with pytest.raises(InputError, match="space.offers: expected an offer of gb300, found none for reserved-1y"):
        api.plan(SMALL, overrides={"space.accelerators": ["gb300"], "space.offers": ["reserved-1y"]}, processes=1)
