"""The shipped scenarios, each planned whole: an answer in the published form that keeps what was asked."""

import json
import shlex
import warnings
from functools import cache
from pathlib import Path

import jsonschema
import pytest

from trilemma import api
from trilemma.report import plan_text

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.yaml"))
VLLM_FLAGS = {
    "--tensor-parallel-size", "--pipeline-parallel-size", "--data-parallel-size", "--enable-expert-parallel",
    "--quantization", "--kv-cache-dtype", "--max-num-batched-tokens", "--max-num-seqs", "--gpu-memory-utilization",
    "--max-model-len", "--no-enable-prefix-caching", "--port", "--nnodes", "--node-rank", "--master-addr",
    "--master-port", "--headless", "--block-size", "--num-gpu-blocks-override",
}  # fmt: skip

pytestmark = pytest.mark.slow
each = pytest.mark.parametrize("name", EXAMPLES)


@cache
def planned(name):
    """The report of an example, and the notices on the way; planned once."""
    with warnings.catch_warnings(record=True) as notices:
        warnings.simplefilter("always")
        report = api.plan(ROOT / "examples" / f"{name}.yaml", processes=2)
    return report, [str(notice.message) for notice in notices]


def document(name):
    return json.loads(json.dumps(planned(name)[0].to_dict(), allow_nan=False))


def test_all_four_are_here():
    assert EXAMPLES == ["batch-summaries", "chat-70b", "code-32b", "moe-deepseek"]


@each
def test_the_answer_has_the_published_form(name):
    schema = json.loads((ROOT / "docs" / "answer.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(document(name), schema, cls=jsonschema.Draft202012Validator)
    scenario = json.loads((ROOT / "docs" / "scenario.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(document(name)["scenario"], scenario, cls=jsonschema.Draft202012Validator)


@each
def test_the_plan_keeps_every_limit_at_the_least_cost(name):
    answer = document(name)
    chosen = answer["chosen"]
    assert chosen["limits"]
    assert all(limit["met"] for limit in chosen["limits"])
    assert all(limit["value"] <= limit["value_at_confidence"] <= limit["bound"] for limit in chosen["limits"])
    assert chosen["usd_per_h"] < min(plan["usd_per_h"] for plan in answer["plans"]) + 0.01
    assert answer["scenario"]["name"] == name
    most = answer["scenario"]["space"].get("max_gpus")
    assert most is None or all(plan["gpus"] <= most for plan in answer["plans"])
    accelerators = set(answer["scenario"]["space"]["accelerators"])
    seen = {plan["accelerator"] for plan in answer["plans"]} | {r["label"].split()[0] for r in answer["rejected"]}
    assert chosen["accelerator"] in accelerators <= seen  # each is planned with, or out for a reason


@each
def test_both_views_of_the_bill_are_the_total(name):
    answer = document(name)
    bill = answer["bill"]
    assert set(answer["use_view"]) == {"useful", "waste", "headroom", "idle", "stranded"}
    assert sum(answer["use_view"].values()) == pytest.approx(bill["total_usd_per_h"], abs=0.005)
    cash = bill["capital_usd_per_h"] + bill["operational_usd_per_h"] + bill["engineering_usd_per_h"]
    assert cash == pytest.approx(bill["total_usd_per_h"], abs=0.005)
    assert answer["usd_per_mtok_output"] > 0


@each
def test_the_launch_command_is_vllms(name):
    chosen = document(name)["chosen"]
    script = chosen["launch"].replace("\\\n", " ")
    commands = [shlex.split(line.removesuffix("&")) for line in script.splitlines() if line and line[0] != "#"]
    assert len(commands) == chosen["replicas"]
    for words in commands:
        visible, *command = words
        assert visible.split("=")[0] in {"CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"}
        assert len(visible.split("=")[1].split(",")) == chosen["gpus_per_replica"]
        assert command[:2] == ["vllm", "serve"]
        flags = [word for word in command if word.startswith("--")]
        assert set(flags) <= VLLM_FLAGS
        values = dict(zip(command, command[1:], strict=False))
        assert int(values["--tensor-parallel-size"]) == chosen["tensor_parallel"]
        assert int(values["--max-num-batched-tokens"]) == chosen["max_num_batched_tokens"]
        assert int(values["--max-num-seqs"]) == chosen["max_num_seqs"]
        assert int(values["--max-model-len"]) == chosen["max_model_len"]
        assert (values.get("--kv-cache-dtype") == "fp8") == (chosen["kv_precision"] == "fp8")
    places = [(words[0], words[words.index("--port") + 1]) for words in commands]
    per_node = {place: places.count(place) for place in places}
    assert len(set(per_node.values())) <= 2  # the same cards and ports on every node, the last one perhaps not full


@each
def test_the_answer_in_words_is_whole(name):
    text = plan_text(planned(name)[0])
    for section in ("Limits", "Bill", "Why", "Why not", "Launch", "Notes"):
        assert f"\n{section}\n" in text
    assert text.startswith(f"{name}: ")


@each
def test_notices_are_about_old_prices_or_the_trace(name):
    report, notices = planned(name)
    assert all("price of" in text or text in report.answer.warnings for text in notices)


def test_the_conversation_is_searched_widely_and_follows_its_day():
    answer = document("chat-70b")
    assert answer["counts"]["simulated"] >= 100
    assert answer["workload"]["requests"] == 19_366
    assert answer["chosen"]["schedule"]["reason"]
    loads = answer["chosen"]["schedule"]["load_requests_per_s"]
    assert max(loads) == pytest.approx(answer["workload"]["mean_rate_per_s"])
    assert max(loads) / (sum(loads) / 24) == pytest.approx(1.7)
    assert answer["use_view"]["idle"] > 0 or not answer["bill"]["offer"].endswith(("owned", "1y", "3y"))


def test_code_is_bounded_by_the_whole_answer():
    keys = [limit["key"] for limit in document("code-32b")["chosen"]["limits"]]
    assert keys == ["ttft_p95_s", "e2e_p95_s"]


def test_the_mixture_takes_whole_nodes():
    chosen = document("moe-deepseek")["chosen"]
    assert (chosen["precision"], chosen["tensor_parallel"], chosen["gpus"] % 8) == ("fp8", 8, 0)
    assert document("moe-deepseek")["workload"]["prefix"]["hit_token_share"] > 0.3


def test_the_night_job_ends_in_time_and_rests_until_the_next_night():
    answer = document("batch-summaries")
    chosen = answer["chosen"]
    assert chosen["latencies"]["makespan_s"] * 1.10 <= 6 * 3600
    assert answer["workload"]["kind"]["name"] == "throughput-sensitive"
    assert len(chosen["schedule"]["load_requests_per_s"]) == 2
    assert chosen["schedule"]["load_requests_per_s"][1] == 0
    assert "24 h" in chosen["schedule"]["reason"]
