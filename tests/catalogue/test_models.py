"""Model rows: what is shipped reads, what is written reads back, what is wrong is named."""

import tomllib
from copy import deepcopy
from dataclasses import replace
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilemma.catalogue.model import Attention, AttentionKind, Block, Mlp, Model
from trilemma.catalogue.models import read_model_rows, row_of
from trilemma.errors import InputError

SHIPPED = files("trilemma.catalogue").joinpath("data/models.toml").read_text(encoding="utf-8")
MODELS = read_model_rows(tomllib.loads(SHIPPED)["models"], where="models.toml")
NAMES = {name.lower(): model for model in MODELS.values() for name in (model.name, *model.aliases)}

count = st.integers(1, 10**6)
flag = st.booleans()


@st.composite
def attentions(draw):
    kind = draw(st.sampled_from(AttentionKind))
    kv_heads = draw(st.integers(1, 16))
    more = {"heads": kv_heads * draw(st.integers(1, 16)), "output_gate": draw(flag)}
    if kind is AttentionKind.GQA:
        more |= {"kv_heads": kv_heads, "head_dim": draw(count), "v_head_dim": draw(count), "bias": draw(flag)}
        more |= {"window_tokens": draw(st.none() | count), "shares_kv": draw(flag), "v_from_k": draw(flag)}
    elif kind is AttentionKind.MLA:
        more |= {k: draw(count) for k in ("kv_lora_rank", "nope_head_dim", "v_head_dim", "rope_head_dim")}
    elif kind is AttentionKind.LINEAR:
        more |= {"kv_heads": kv_heads, "head_dim": draw(count), "v_head_dim": draw(count), "conv_kernel": draw(count)}
        more |= {"state_bytes_per_element": draw(st.sampled_from([2, 4]))}
    else:
        more |= {k: draw(count) for k in ("head_dim", "state_dim", "groups", "conv_kernel")}
    return Attention(kind=kind, **more)


@st.composite
def mlps(draw):
    experts = draw(st.sampled_from([0, 8, 256]))
    routed = {"experts": experts, "experts_per_token": draw(st.integers(1, 8)), "expert_width": draw(count)}
    return Mlp(width=draw(count), gated=draw(flag), shared_gate=draw(flag), **(routed if experts else {}))


blocks = st.one_of(
    st.builds(Block, count=count, attention=attentions(), mlp=st.none() | mlps()),
    st.builds(Block, count=count, attention=st.none(), mlp=mlps()),
)
models = st.builds(
    Model,
    name=st.just("owner/model"),
    hidden=count,
    vocab=count,
    blocks=st.lists(blocks, min_size=1, max_size=4).map(tuple),
    tied_embeddings=flag,
    precision=st.sampled_from(["bf16", "fp8"]),
    mtp_layers=st.integers(0, 3),
    vision_params=st.integers(0, 10**9),
    aliases=st.lists(st.text(min_size=1, max_size=8), max_size=2, unique_by=str.lower).map(tuple),
)


@given(models)
def test_a_row_reads_back_as_the_model_it_was_written_from(model):
    assert read_model_rows({model.name: row_of(model)}, where="t") == {model.name: model}


@pytest.mark.parametrize("name", MODELS)
def test_every_shipped_row_round_trips_and_says_where_it_is_from(name):
    model = MODELS[name]
    assert read_model_rows({name: row_of(model)}, where="t")[name] == model
    assert model.reference
    assert model.precision in {"bf16", "fp8", "int8", "int4", "mxfp4", "nvfp4"}
    assert model.max_context_tokens >= 2048


def test_at_least_45_models_of_every_kind():
    kinds = {b.attention.kind for m in MODELS.values() for b in m.blocks if b.attention is not None}
    assert len(MODELS) >= 45
    assert kinds == set(AttentionKind)
    assert any(b.attention and b.attention.window_tokens for m in MODELS.values() for b in m.blocks)


@pytest.mark.parametrize(
    "name",
    [
        "MiniMaxAI/MiniMax-M2.5",
        "Qwen/Qwen3-235B-A22B-FP8",
        "Qwen/Qwen3-32B",
        "Qwen/Qwen3.5-397B-A17B",
        "deepseek-ai/DeepSeek-R1",
        "meta-llama/Meta-Llama-3.1-70B",
        "openai/gpt-oss-120b",
        "llama-3.1-70b",
        "meta-llama/Llama-3.1-70B-Instruct",
        "meta-llama/Llama-3.3-70B-Instruct",
        "deepseek-ai/DeepSeek-R1-0528",
        "RedHatAI/Llama-4-Scout-17B-16E-Instruct-FP8-dynamic",
        "Llama-3.1-70B",
        "Llama-3.3-70B",
        "Qwen3-235B-A22B-Instruct-2507",
        "DeepSeek-V3-0324",
        "DeepSeek-V3.1",
        "DeepSeek-V3.2",
        "DeepSeek-R1-0528",
        "gpt-oss-120b",
        "DeepSeek-V4-Pro",
        "Kimi-K2.6/2.7",
    ],
)
def test_names_of_measurements_and_price_lists_resolve(name):
    assert name.lower() in NAMES


GOOD = {
    "hidden": 64,
    "vocab": 1000,
    "blocks": [
        {
            "count": 2,
            "attention": {"kind": "gqa", "heads": 8, "kv_heads": 2, "head_dim": 8},
            "mlp": {"experts": 4, "experts_per_token": 2, "expert_width": 32},
        }
    ],
}


def changed(path: str, value: object) -> dict:
    """GOOD with the value at "blocks.0.attention.heads" replaced, or removed if `value` is ..."""
    copy = deepcopy(GOOD)
    at = copy
    *parents, last = (int(key) if key.isdigit() else key for key in path.split("."))
    for key in parents:
        at = at[key]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return copy


@pytest.mark.parametrize(
    ("path", "value", "place", "found"),
    [
        ("hiden", 1, "models.m.hiden", "unknown key"),
        ("blocks.0.attention.head", 1, "models.m.blocks[0].attention.head", "unknown key"),
        ("blocks.0.mlp.expert", 1, "models.m.blocks[0].mlp.expert", "unknown key"),
        ("name", "x", "models.m.name", "'x'"),
        ("hidden", ..., "models.m.hidden", "no such key"),
        ("hidden", 0, "models.m.hidden", "0"),
        ("hidden", -4096, "models.m.hidden", "-4096"),
        ("hidden", 4096.0, "models.m.hidden", "4096.0"),
        ("hidden", True, "models.m.hidden", "True"),
        ("hidden", "4096", "models.m.hidden", "'4096'"),
        ("vocab", float("nan"), "models.m.vocab", "nan"),
        ("tied_embeddings", 1, "models.m.tied_embeddings", "1"),
        ("precision", 8, "models.m.precision", "8"),
        ("blocks", [], "models.m.blocks", "[]"),
        ("blocks", {"count": 1}, "models.m.blocks", "count"),
        ("blocks.0.count", ..., "models.m.blocks[0].count", "no such key"),
        ("blocks.0", {"count": 1}, "models.m.blocks[0]", "neither"),
        ("blocks.0.attention", 5, "models.m.blocks[0].attention", "5"),
        ("blocks.0.attention.kind", "mha", "models.m.blocks[0].attention.kind", "'mha'"),
        ("blocks.0.attention.kind", "mla", "models.m.blocks[0].attention.kv_lora_rank", "no such key"),
        ("blocks.0.attention.kv_heads", ..., "models.m.blocks[0].attention.kv_heads", "no such key"),
        ("blocks.0.attention.kv_heads", 3, "models.m.blocks[0].attention.kv_heads", "3"),
        ("blocks.0.attention.window_tokens", 0, "models.m.blocks[0].attention.window_tokens", "0"),
        ("blocks.0.mlp.experts_per_token", 5, "models.m.blocks[0].mlp.experts_per_token", "5"),
        ("blocks.0.mlp.expert_width", ..., "models.m.blocks[0].mlp.expert_width", "no such key"),
        ("blocks.0.mlp", {"gated": False}, "models.m.blocks[0].mlp.width", "neither"),
        ("aliases", "x", "models.m.aliases", "'x'"),
        ("aliases", [1], "models.m.aliases", "[1]"),
    ],
)
def test_a_wrong_row_is_named_by_file_and_key(path, value, place, found):
    with pytest.raises(InputError) as error:
        read_model_rows({"m": changed(path, value)}, where="my.toml")
    assert error.value.where == f"my.toml: {place}"
    assert found in error.value.found
    assert error.value.exit_code == 2


def test_a_row_that_is_no_table_is_named():
    with pytest.raises(InputError, match=r"my\.toml: models\.m: expected a table, found 5"):
        read_model_rows({"m": 5}, where="my.toml")


def test_two_rows_may_not_claim_one_name():
    rows = {"a/one": GOOD | {"aliases": ["same"]}, "a/two": GOOD | {"aliases": ["Same"]}}
    with pytest.raises(InputError, match="'Same' of a/one"):
        read_model_rows(rows, where="my.toml")


def test_defaults_are_left_out_and_restored():
    model = read_model_rows({"m": GOOD}, where="t")["m"]
    assert model.blocks[0].attention.v_head_dim == 8
    assert row_of(model) == GOOD
    assert row_of(replace(model, precision="fp8"))["precision"] == "fp8"
