"""Finding rows by name, alias, kind and file."""

import json
import pickle

import pytest

from trilemma.catalogue.catalogue import load_catalogue
from trilemma.catalogue.offer import OfferKind
from trilemma.catalogue.precision import Role
from trilemma.errors import InputError

CATALOGUE = load_catalogue()


@pytest.mark.parametrize("name", ["h100_sxm", "H100_SXM", "h100-sxm", " H100 SXM", "h100"])
def test_any_case_and_separator_finds_a_row(name):
    assert CATALOGUE.accelerator(name).name == "h100_sxm"


def test_aliases():
    assert CATALOGUE.accelerator("GB200_NVL72").name == "gb200"
    assert CATALOGUE.engine("TensorRT-LLM").name == "trtllm"
    assert CATALOGUE.precision("BF16").name == CATALOGUE.precision("bfloat16").name == "bf16"
    assert CATALOGUE.api_price("Llama-3.1-70B").model == "meta-llama/Meta-Llama-3.1-70B"


@pytest.mark.parametrize(
    ("look", "name", "near"),
    [
        ("accelerator", "h100x", "h100_sxm"), ("engine", "vlm", "vllm"), ("precision", "fp6", "fp8"),
        ("offer", "h100_sxm/ondemand", "h100_sxm/on-demand"),
        ("model", "meta-llama/Llama-3.1-70", "meta-llama/Meta-Llama-3.1-70B"),
        ("api_price", "gpt-oss-12b", "openai/gpt-oss-120b"),
    ],
)  # fmt: skip
def test_what_is_not_there_brings_the_nearest_names(look, name, near):
    with pytest.raises(InputError, match=near) as caught:
        getattr(CATALOGUE, look)(name)
    assert repr(name) in str(caught.value)


def test_the_error_names_the_key_that_asked():
    with pytest.raises(InputError, match=r"^chat.yaml: space.accelerators\[0\]: "):
        CATALOGUE.accelerator("nope", where="chat.yaml: space.accelerators[0]")


def test_offers_by_kind_and_term():
    labels = [offer.label for offer in CATALOGUE.offers_for("h100")]
    assert labels == ["owned", "on-demand", "reserved-1y", "reserved-3y", "spot"]
    reserved = CATALOGUE.offers_for("h100", ["reserved"])
    assert reserved == CATALOGUE.offers_for("h100", ["reserved-1y", "reserved-3y"])
    assert CATALOGUE.offers_for("h100", [OfferKind.SPOT]) == CATALOGUE.offers_for("h100", ["Spot"])
    everything = CATALOGUE.offers_for("h100", default_only=False)
    assert {"h100_sxm/on-demand-hyperscaler", "h100_sxm/owned-dgx"} <= {offer.name for offer in everything}
    assert CATALOGUE.offers_for("gb300", ["on-demand"]) == ()


def test_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match=r"expected one of owned, on-demand.*found 'rented'"):
        CATALOGUE.offers_for("h100", ["rented"])


def test_prepaid_terms_say_so():
    assert CATALOGUE.offer("h100_sxm/reserved-3y-prepaid").upfront_share == 0.25
    assert CATALOGUE.offer("h100_sxm/reserved-3y-prepaid").term_months == 36


def test_a_model_by_name_alias_and_ending():
    whole = CATALOGUE.model("meta-llama/Meta-Llama-3.1-70B")
    assert CATALOGUE.model("meta-llama/meta-llama-3.1-70b") is whole
    assert CATALOGUE.model("Meta-Llama-3.1-70B") is whole


def test_a_model_from_a_config_on_disk(tmp_path):
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256,
        "torch_dtype": "bfloat16", "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert CATALOGUE.model(str(tmp_path)).hidden == 64
    assert CATALOGUE.model(tmp_path / "config.json") == CATALOGUE.model(tmp_path)


def test_a_missing_config_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"config\.json"):
        CATALOGUE.model(str(tmp_path / "config.json"))
    with pytest.raises(InputError, match="no file"):
        CATALOGUE.model(tmp_path / "nowhere")


def test_the_price_of_the_model_asked_for_goes_before_its_architectures():
    v3 = CATALOGUE.model("deepseek-ai/DeepSeek-V3")
    asked = CATALOGUE.api_price_of(v3, "deepseek-ai/DeepSeek-R1")
    assert asked is not None
    assert asked.model == "deepseek-ai/DeepSeek-R1-0528"
    assert CATALOGUE.api_price_of(CATALOGUE.model("Qwen/Qwen3-0.6B")) is None


def test_nvfp4_follows_the_kind_of_model():
    dense = CATALOGUE.precision("nvfp4", model=CATALOGUE.model("meta-llama/Meta-Llama-3.1-70B"))
    moe = CATALOGUE.precision("nvfp4", model=CATALOGUE.model("deepseek-ai/DeepSeek-V3"))
    assert dense.bytes_per_weight(Role.ATTENTION) == 4.5 / 8
    assert moe.bytes_per_weight(Role.ATTENTION) == 2.0
    assert moe.bytes_per_weight(Role.EXPERT) == 4.5 / 8
    assert CATALOGUE.precision("fp8", model=CATALOGUE.model("deepseek-ai/DeepSeek-V3")) == CATALOGUE.precision("fp8")


def test_two_loads_are_equal_and_a_copy_survives_pickling():
    again = load_catalogue()
    assert again == CATALOGUE
    assert again.digest == CATALOGUE.digest
    assert pickle.loads(pickle.dumps(CATALOGUE)).digest == CATALOGUE.digest


def test_rows_are_frozen():
    with pytest.raises(AttributeError):
        CATALOGUE.economics.pue = 2.0  # type: ignore[misc]
