"""`predict`: the contract's columns, intervals in order, and a reason for every row without numbers."""

import csv
import io
import json

import pytest

from trilemma import api
from trilemma.catalogue.catalogue import load_catalogue
from trilemma.cli.frame import run
from trilemma.errors import InputError, UnsupportedError

CONTRACT = (
    "predicted_ttft_ms", "predicted_ttft_ms_low", "predicted_ttft_ms_high",
    "predicted_tpot_ms", "predicted_tpot_ms_low", "predicted_tpot_ms_high", "predicted_tpot_ms_safe",
    "predicted_tok_s_per_gpu", "predicted_tok_s_per_gpu_low", "predicted_tok_s_per_gpu_high",
    "source", "note",
)  # fmt: skip
NUMBERS = CONTRACT[:-2]
ROW = {
    "id": "r1", "model": "Qwen/Qwen3-32B", "system": "h100_sxm", "engine": "vllm", "precision": "fp8",
    "isl": "1024", "osl": "128", "concurrency": "16", "tp": "2",
}  # fmt: skip
DEEPSEEK = {"model": "deepseek-ai/DeepSeek-V3", "system": "h200_sxm", "tp": "8"}
PREDICTABLE = {
    "dense": {},
    "one token at a time": {"concurrency": "1"},
    "many clients": {"concurrency": "500"},
    "long prompts": {"isl": "30000", "osl": "20"},
    "ragged lengths": {"length_ratio_low": "0.3"},
    "another engine": {"engine": "sglang"},
    "another vendor": {"system": "mi300x"},
    "four bits": {"precision": "nvfp4", "system": "b200_sxm"},
    "mixture": DEEPSEEK,
    "attention ranks": DEEPSEEK | {"tp": "1", "dp": "8", "ep": "8"},
    "mtp": DEEPSEEK | {"speculative": "mtp"},
    "stages": {"pp": "2"},
    "a version that was measured": {"engine_version": "0.12.0"},
    "a version that nobody knows": {"engine_version": ""},
    "a small card": {"model": "Qwen/Qwen3-8B", "system": "l4", "tp": "1", "precision": "bf16"},
    "aliases and space": {"model": " qwen/qwen3-32b ", "system": "H100"},
    "measured columns beside": {"ttft_ms": "99", "measured_on": "2025-01-01"},
}


def one(**changes):
    (answer,) = api.predict([ROW | changes])
    return answer


@pytest.mark.parametrize("changes", PREDICTABLE.values(), ids=PREDICTABLE)
def test_numbers_have_their_interval_around_them(changes):
    answer = one(**changes)
    assert tuple(answer) == CONTRACT
    assert answer["source"] in {"measured", "fitted", "derived", "vendor", "guess"}
    for name in ("predicted_ttft_ms", "predicted_tpot_ms", "predicted_tok_s_per_gpu"):
        assert 0 < answer[f"{name}_low"] <= answer[name] <= answer[f"{name}_high"]
    assert answer["predicted_tpot_ms"] <= answer["predicted_tpot_ms_safe"] <= answer["predicted_tpot_ms_high"]
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer


UNPREDICTABLE = {
    "unknown model": ({"model": "Qwen/Qwen3-32X"}, "nearest: Qwen/Qwen3-32B"),
    "unknown accelerator": ({"system": "h101_sxm"}, "nearest: h100_sxm"),
    "unknown engine": ({"engine": "vlm"}, "nearest: vllm"),
    "unknown precision": ({"precision": "fp5"}, "nearest: fp8"),
    "does not fit": ({"system": "l4", "tp": "1"}, "does not fit: fp8 weights 31"),
    "no room for one request": ({"isl": "1000000"}, "does not fit: KV pool"),
    "heads": ({"tp": "3"}, "heads do not divide by tensor parallelism 3"),
    "dense over experts": ({"ep": "2"}, "expert parallelism 2 on a model without experts"),
    "dense over ranks": ({"dp": "2"}, "attention data parallelism 2 needs a mixture of experts"),
    "stages": ({"pp": "65"}, "65 pipeline stages are more than the model's 64 layers"),
    "gpus": ({"gpus": "4"}, "rows:2: gpus: expected tp x dp x pp = 2, found 4"),
    "no mtp layers": ({"speculative": "mtp"}, "has no multi-token prediction layers"),
    "other speculation": ({"speculative": "eagle"}, "rows:2: speculative: expected mtp or nothing, found 'eagle'"),
    "engine on vendor": ({"engine": "trtllm", "system": "mi300x"}, "TensorRT-LLM does not run on AMD"),
    "no number": ({"isl": "long"}, "rows:2: isl: expected a whole number of at least 1, found 'long'"),
    "no whole number": ({"osl": "1.5"}, "rows:2: osl: expected a whole number of at least 1, found '1.5'"),
    "zero": ({"concurrency": "0"}, "rows:2: concurrency: expected a whole number of at least 1, found '0'"),
    "nothing": ({"tp": ""}, "rows:2: tp: expected a whole number of at least 1, found ''"),
    "no name": ({"model": ""}, "rows:2: model: expected a name, found nothing"),
    "ratio": ({"length_ratio_low": "nan"}, "rows:2: length_ratio_low: expected a ratio in (0, 1], found 'nan'"),
}


@pytest.mark.parametrize(("changes", "said"), UNPREDICTABLE.values(), ids=UNPREDICTABLE)
def test_a_row_without_numbers_says_why(changes, said):
    answer = one(**changes)
    assert tuple(answer) == CONTRACT
    assert {answer[name] for name in NUMBERS} == {None}
    assert answer["source"] == ""
    assert said in answer["note"]


def test_a_column_that_is_missing_altogether_is_named_too():
    for column in ("model", "system", "engine", "precision", "isl", "concurrency", "tp"):
        (answer,) = api.predict([{key: value for key, value in ROW.items() if key != column}])
        assert f"rows:2: {column}: expected" in answer["note"]


def test_the_others_go_on_and_lines_are_those_of_the_file():
    rows = [ROW, ROW | {"tp": "x"}, ROW | {"concurrency": "4"}, ROW | {"model": "?"}]
    seen = []
    answers = api.predict(rows, where="mine.csv", progress=lambda *now: seen.append(now))
    assert [a["predicted_tpot_ms"] is None for a in answers] == [False, True, False, True]
    assert answers[1]["note"].startswith("mine.csv:3: tp: ")
    assert answers[3]["note"].startswith("mine.csv:5: model: ")
    assert seen[0][:2] == (0, 4)
    assert seen[-1][:2] == (4, 4)
    assert answers[0] == one()
    assert answers[2] == one(concurrency="4")


def test_the_same_row_gives_the_same_bits_and_another_seed_other_lengths():
    ragged = [ROW | {"length_ratio_low": "0.5"}]
    assert api.predict(ragged, seed=3) == api.predict(ragged, seed=3)
    assert api.predict(ragged, seed=3) != api.predict(ragged, seed=4)
    assert api.predict([ROW], seed=3) == api.predict([ROW], seed=4)  # nothing is drawn


def test_one_output_token_has_no_tpot():
    answer = one(osl="1")
    assert answer["predicted_ttft_ms"] > 0
    assert answer["predicted_tok_s_per_gpu"] > 0
    tpot = ("predicted_tpot_ms", "predicted_tpot_ms_low", "predicted_tpot_ms_high", "predicted_tpot_ms_safe")
    assert [answer[name] for name in tpot] == [None] * 4
    assert answer["note"].startswith("TPOT is undefined: no request has a second output token")


def test_predictions_move_the_way_physics_does():
    tpot = [one(concurrency=str(n))["predicted_tpot_ms"] for n in (1, 16, 128)]
    assert tpot == sorted(tpot)
    per_gpu = [one(concurrency=str(n))["predicted_tok_s_per_gpu"] for n in (1, 16, 128)]
    assert per_gpu == sorted(per_gpu)
    assert one(precision="bf16")["predicted_tpot_ms"] > one()["predicted_tpot_ms"]
    assert one(tp="4")["predicted_tpot_ms"] < one()["predicted_tpot_ms"]
    assert one(system="h200_sxm")["predicted_tpot_ms"] < one()["predicted_tpot_ms"]
    assert one(isl="8192")["predicted_ttft_ms"] > one()["predicted_ttft_ms"]
    assert one(**DEEPSEEK, speculative="mtp")["predicted_tpot_ms"] < one(**DEEPSEEK)["predicted_tpot_ms"]


def test_what_was_never_measured_has_a_wider_interval():
    def width(answer):
        return answer["predicted_tpot_ms_high"] / answer["predicted_tpot_ms_low"]

    fitted, carried = one(), one(model="Qwen/Qwen3-8B", system="rtx_pro_6000", tp="1")
    assert fitted["source"] == "fitted"
    if carried["source"] != "fitted":
        assert width(carried) > width(fitted)
        assert carried["note"]


class TestOne:
    FLAGS = {"model": "Qwen/Qwen3-32B", "accelerator": "h100_sxm", "precision": "fp8", "tp": 2, "isl": 1024, "osl": 128}

    def test_closed_loop_agrees_with_the_row(self):
        answer = api.predict_one(**self.FLAGS, engine="sglang", concurrency=16)
        assert {name: answer[name] for name in CONTRACT} == one(engine="sglang")

    def test_a_row_is_launched_as_published_runs_were_and_flags_are_not(self):
        launched = "launched as published runs like it were: 4,096 tokens a step"
        assert launched in one()["note"]
        assert launched not in api.predict_one(**self.FLAGS, concurrency=16)["note"]

    def test_steps_are_told_term_by_term(self):
        answer = api.predict_one(**self.FLAGS, concurrency=16)
        assert set(answer) == {*CONTRACT, "decode_step", "prefill_step"}
        h100 = load_catalogue().accelerator("h100_sxm")
        for step in (answer["decode_step"], answer["prefill_step"]):
            terms = {key: text for key, text in step.items() if key not in ("total_ms", "waits_for", "watts_per_gpu")}
            assert h100.idle_w < step["watts_per_gpu"] <= h100.tdp_w
            assert sum(float(text.split(" ms ")[0]) for text in terms.values()) == pytest.approx(
                step["total_ms"], rel=1e-3
            )
            assert any(text.endswith(f"({step['waits_for']})") for text in terms.values())

    def test_open_loop_waits_longer_the_faster_requests_come(self):
        slow, fast = (api.predict_one(**self.FLAGS, rate=rate) for rate in ("30 req/min", "12 req/s"))
        for name in ("predicted_ttft_ms", "predicted_tpot_ms", "predicted_tok_s_per_gpu"):
            assert slow[name] < fast[name]
        assert api.predict_one(**self.FLAGS, rate="0.5 req/s") == slow
        assert api.predict_one(**self.FLAGS, rate="0.5 req/s", seed=1) != slow

    def test_the_published_format_is_the_default_and_the_cache_can_be_another(self):
        native = api.predict_one(**self.FLAGS | {"precision": None}, concurrency=16)
        assert native == api.predict_one(**self.FLAGS | {"precision": "bf16"}, concurrency=16)
        small = api.predict_one(**self.FLAGS, kv_precision="fp8", concurrency=16)
        assert small["predicted_tpot_ms"] < api.predict_one(**self.FLAGS, concurrency=16)["predicted_tpot_ms"]

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"concurrency": None}, "predict: expected either --concurrency or --rate, found neither"),
            ({"rate": "1 req/s"}, "predict: expected either --concurrency or --rate, found both"),
            ({"model": None}, "--model: expected a value"),
            ({"isl": None}, "--isl: expected a value"),
            ({"isl": 0}, "--isl: expected a whole number of at least 1, found 0"),
            ({"tp": 0}, "--tp: expected a whole number of at least 1, found 0"),
            ({"concurrency": 0}, "--concurrency: expected a whole number of at least 1, found 0"),
            ({"concurrency": None, "rate": "5"}, "(the unit is missing)"),
            ({"concurrency": None, "rate": "0 req/s"}, "--rate: expected a rate above 0, found '0 req/s'"),
            ({"kv_precision": "int3"}, "--kv-precision: expected one of bf16, fp16, fp8, found 'int3'"),
            ({"model": "Qwen/Qwen3-32X"}, "nearest: Qwen/Qwen3-32B"),
            ({"accelerator": "h101"}, "nearest: h100_sxm"),
        ],
    )
    def test_what_cannot_be_meant_is_an_error(self, changes, said):
        with pytest.raises(InputError) as raised:
            api.predict_one(**self.FLAGS | {"concurrency": 16} | changes)
        assert said in str(raised.value)

    def test_what_cannot_run_is_unsupported(self):
        with pytest.raises(UnsupportedError, match="does not fit"):
            api.predict_one(**self.FLAGS | {"accelerator": "l4", "tp": 1}, concurrency=1)


def test_the_command_line_reads_and_writes_the_contract(capsys, tmp_path):
    path, written = tmp_path / "rows.csv", tmp_path / "out.csv"
    rows = [ROW, ROW | {"id": "r2", "model": "Qwen/Qwen3-32X"}]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ROW))
        writer.writeheader()
        writer.writerows(rows)
    assert run(["predict", str(path), "--output-file", str(written), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    first, second = csv.DictReader(io.StringIO(written.read_text()))
    assert list(first) == [*ROW, *CONTRACT]
    assert {key: first[key] for key in ROW} == ROW
    assert float(first["predicted_tpot_ms"]) == pytest.approx(one()["predicted_tpot_ms"])
    assert {second[name] for name in NUMBERS} == {""}
    assert f"{path}:3: model: " in second["note"]
    assert run(["predict", str(path), "--strict", "--quiet", "-o", "csv"]) == 5
    assert "1 of 2 rows not predicted" in capsys.readouterr().err


def test_a_models_own_config_can_be_predicted(tmp_path):
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
        "max_position_embeddings": 131072, "torch_dtype": "bfloat16", "tie_word_embeddings": False,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    known = one(model="meta-llama/Meta-Llama-3.1-8B", tp="1", precision="bf16")
    assert load_catalogue().model("meta-llama/Meta-Llama-3.1-8B").hidden == 4096
    assert one(model=str(tmp_path), tp="1", precision="bf16") == known
    assert one(model=str(tmp_path / "config.json"), tp="1", precision="bf16") == known


def test_models_of_ones_own_are_not_mistaken_for_one_another(tmp_path):
    """Every row reads its file anew: what was found out about one model must not be told of the next."""
    shape = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072, "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
    }  # fmt: skip
    sizes = {
        "small": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32},
        "large": {"hidden_size": 16384, "intermediate_size": 53248, "num_hidden_layers": 126},
    }
    for name, size in sizes.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(shape | size))
    names = ["large", "small", "small", "large", "large", "small", "large"] * 12
    rows = [ROW | {"model": str(tmp_path / name), "tp": "1", "precision": "bf16", "osl": "8"} for name in names]
    fits = [answer["predicted_tpot_ms"] is not None for answer in api.predict(rows)]
    assert fits == [name == "small" for name in names]
