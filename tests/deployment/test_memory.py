"""KV bytes, pools and what does not fit: against published figures and logs, then as laws."""

import tomllib
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilemma.catalogue.models import read_model_rows
from trilemma.deployment.memory import (
    fits,
    kv_bytes,
    kv_bytes_per_token_per_gpu,
    kv_footprint,
    memory,
    why_not,
)
from trilemma.deployment.spec import Parallelism
from trilemma.units import GIB

SHIPPED = files("trilemma.catalogue").joinpath("data/models.toml").read_text(encoding="utf-8")
MODELS = read_model_rows(tomllib.loads(SHIPPED)["models"], where="models.toml")

# (model, tensor parallelism, bytes per token per GPU in a BF16 cache, source)
KV_PER_TOKEN = [
    ("meta-llama/Meta-Llama-3.1-70B", 1, 327_680, "80 x 8 x 2 x 128 x 2 B"),
    ("meta-llama/Meta-Llama-3.1-70B", 8, 40_960, "one KV head a GPU"),
    ("meta-llama/Meta-Llama-3.1-70B", 16, 40_960, "KV heads copied past 8"),
    ("meta-llama/Meta-Llama-3.1-8B", 1, 131_072, "vLLM 0.31 log: 56.21 GiB hold 460,496 tokens"),
    ("deepseek-ai/DeepSeek-V3", 1, 70_272, "arXiv 2505.09343, table 1: 70.272 KB"),
    ("deepseek-ai/DeepSeek-V3", 8, 70_272, "vLLM 0.11.2 log: 41.60 GiB hold 635,648 tokens"),
    ("Qwen/Qwen2-72B", 1, 327_680, "arXiv 2505.09343, table 1: 327.680 KB (Qwen-2.5 72B)"),
    ("meta-llama/Meta-Llama-3.1-405B", 1, 516_096, "arXiv 2505.09343, table 1: 516.096 KB"),
    ("Qwen/Qwen3-235B-A22B", 4, 48_128, "vLLM issue 21348: 8.11 GiB hold 178,880 tokens at TP 4"),
    ("meta-llama/Llama-2-7b-hf", 1, 524_288, "arXiv 2309.06180 gives 800 KB for OPT-13B; 32 x 32 x 2 x 128 x 2 B"),
    ("deepseek-ai/DeepSeek-V3.2", 8, 61 * (1152 + 132), "vLLM DeepseekV32IndexerCache: 132 B of FP8 key a layer"),
    ("zai-org/GLM-5.2", 4, 78 * 1152 + 21 * 132, "indexer keys in 21 of 78 layers"),
]


@pytest.mark.parametrize(("name", "tensor", "expected", "source"), KV_PER_TOKEN, ids=lambda v: str(v).split("/")[-1])
def test_kv_bytes_per_token_are_the_published_ones(name, tensor, expected, source):
    assert kv_bytes_per_token_per_gpu(MODELS[name], 2.0, Parallelism(tensor=tensor)) == expected, source


def test_deepseek_v4_holds_a_million_tokens_in_the_published_bytes():
    # vLLM blog on DeepSeek-V4: 9.62 GiB a sequence at 1M tokens in BF16 (indexer keys too), 8.7 x less than V3.2.
    def in_16_bits(model):
        widened = [
            replace(b, attention=replace(b.attention, index_key_bytes=2 * b.attention.index_head_dim))
            for b in model.blocks
        ]
        return replace(model, blocks=tuple(widened))

    v4, v32 = (
        kv_footprint(in_16_bits(MODELS[name]), 2.0, Parallelism()).growing_bytes_per_token * 2**20
        for name in ("deepseek-ai/DeepSeek-V4-Pro", "deepseek-ai/DeepSeek-V3.2")
    )
    assert v4 / GIB == pytest.approx(9.62, rel=0.002)
    assert v32 / v4 == pytest.approx(8.7, rel=0.005)


# (model, weights, GiB a GPU shows, TP, knobs, framework GiB of the log, published pool GiB, tokens, source)
LOGS = [
    (
        ("meta-llama/Meta-Llama-3.1-8B", "bf16", 79.25, 1, 2048, 256, 0.26),
        (56.21, 460_496),
        "vLLM 0.31 on A100 80 GB, defaults",
    ),
    (
        ("meta-llama/Meta-Llama-3.1-70B", "fp8", 139.81, 4, 8192, 1024, 1.0),
        (106.17, 1_391_552),
        "vLLM 0.11.2 on 4 x H200, Llama-3.3-70B-Instruct-FP8-dynamic",
    ),
    (
        ("deepseek-ai/DeepSeek-V3", "fp8", 139.81, 8, 8192, 1024, 1.0),
        (41.60, 635_648),
        "vLLM 0.11.2 on 8 x H200, DeepSeek-R1-0528",
    ),
]


@pytest.mark.parametrize(("setting", "published", "source"), LOGS, ids=lambda v: v[0] if isinstance(v, tuple) else "")
def test_the_pool_is_what_vllm_logged(deploy, setting, published, source):
    name, weights, gib, tensor, tokens, sequences, framework = setting
    deployment = deploy(
        name,
        weights,
        gib,
        tensor=tensor,
        max_num_batched_tokens=tokens,
        max_num_seqs=sequences,
        framework=framework * GIB,
        max_model_len=8192,
    )
    held = memory(deployment)
    assert held.available_bytes / GIB == pytest.approx(published[0], rel=0.05), source
    assert held.kv_capacity_tokens == pytest.approx(published[1], rel=0.05), source


# (model, TP, max_num_batched_tokens, max_num_seqs, logged GiB of peak activation, source)
PEAKS = [
    ("Qwen/Qwen3-8B", 4, 8192, 256, 1.45, "vLLM 0.8.5, DeepSeek-R1-0528-Qwen3-8B"),
    ("Qwen/Qwen3-8B", 1, 2048, 256, 1.40, "vLLM 0.14, one 48 GB GPU"),
    ("meta-llama/Meta-Llama-3.1-8B", 1, 2048, 256, 1.19, "vLLM 0.6, Llama-3-8B"),
    ("zai-org/GLM-5.2", 4, 8192, 1024, 6.31, "vLLM 0.26, GLM-5.2-NVFP4 on B200"),
]


@pytest.mark.parametrize(("name", "tensor", "tokens", "sequences", "gib", "source"), PEAKS)
def test_peak_activations_are_near_what_vllm_logged(deploy, name, tensor, tokens, sequences, gib, source):
    held = memory(
        deploy(name, gib=180, tensor=tensor, max_num_batched_tokens=tokens, max_num_seqs=sequences)
    ).activation_bytes
    assert held / GIB == pytest.approx(gib, rel=0.12), source


def test_windows_cap_and_state_is_paid_once(deploy):
    footprint = kv_footprint(MODELS["openai/gpt-oss-120b"], 2.0, Parallelism())
    assert footprint.growing_bytes_per_token == 18 * 2 * 8 * 64 * 2
    assert footprint.window_terms == ((36_864, 128),)
    held = kv_bytes(MODELS["openai/gpt-oss-120b"], np.array([0, 100, 128, 1000]), 2.0, Parallelism())
    assert held.tolist() == [0, 7_372_800, 9_437_184, 36_864 * 1128]
    hybrid = kv_footprint(MODELS["Qwen/Qwen3.5-397B-A17B"], 2.0, Parallelism(tensor=8))
    conv = (2 * 16 * 128 + 64 * 128) * 3 * 2
    assert hybrid.state_bytes_per_sequence == 45 * (64 * 128 * 128 * 4 + conv) / 8
    assert hybrid.growing_bytes_per_token == 15 * 2 * 256 * 2
    assert not hybrid.is_uniform


def test_each_attention_dp_rank_has_its_own_pool(deploy):
    alone = memory(deploy("DeepSeek-R1", "fp8", 139.81, data=8, expert=8))
    assert alone.data_ranks == 8
    assert alone.kv_capacity_tokens_per_replica == 8 * alone.kv_capacity_tokens
    assert alone.kv.growing_bytes_per_token == 70_272


def test_blocks_are_whole_and_one_is_null(deploy):
    held = memory(deploy("Llama-3.1-70B", "fp8", 79.18, tensor=4))
    assert held.num_blocks == int(held.pool_bytes / (81_920 * 16))
    assert held.kv_capacity_tokens == (held.num_blocks - 1) * 16
    assert held.usable_pool_bytes == pytest.approx(held.kv_capacity_tokens * 81_920, rel=1e-3)
    assert held.sequences_at(1000) == pytest.approx(held.kv_capacity_tokens / 1000, rel=1e-3)


def test_a_stated_number_of_blocks_overrides_the_estimate(deploy):
    held = memory(deploy("Llama-3.1-70B", "fp8", 79.18, tensor=4, num_gpu_blocks=28_781))
    assert held.num_blocks == 28_781
    assert held.kv_capacity_tokens == 28_780 * 16
    assert held.fits
    assert not fits(deploy("Llama-3.1-70B", "fp8", 79.18, tensor=4, num_gpu_blocks=10))
    assert not fits(deploy("Llama-3.1-70B", "bf16", 79.18, num_gpu_blocks=28_781))  # weights alone exceed the GPU


def test_short_sequences_of_a_hybrid_cost_more_per_token_than_long_ones(deploy):
    deployment = deploy("Qwen/Qwen3.5-397B-A17B", "fp8", 180, tensor=8)
    short, long = (memory(deployment, reference_tokens=n) for n in (1_000, 100_000))
    assert short.reference_tokens == 1_000
    assert short.kv_capacity_tokens < 0.5 * long.kv_capacity_tokens
    assert short.sequences_at(1_000) == pytest.approx(long.sequences_at(1_000), rel=0.01)
    uniform = deploy("Llama-3.1-70B", "fp8", tensor=4)
    assert memory(uniform, reference_tokens=1_000).num_blocks == memory(uniform).num_blocks


def test_speculation_adds_weights_and_kv_of_the_mtp_layers(deploy):
    off, on = (memory(deploy("DeepSeek-R1", "fp8", 139.81, tensor=8, mtp=mtp)) for mtp in (False, True))
    assert on.weight_bytes > off.weight_bytes
    assert on.kv.growing_bytes_per_token == off.kv.growing_bytes_per_token * 62 / 61


def test_engines_share_memory_by_their_own_rules(deploy):
    pools = {
        name: memory(deploy("Llama-3.1-70B", "fp8", tensor=4, engine_name=name, gpu_memory_utilization=0.9)).pool_bytes
        for name in ("vllm", "trtllm", "sglang", "another")
    }
    assert pools["another"] == pools["vllm"]
    assert pools["trtllm"] > pools["vllm"]  # 0.9 of what is free, not of the total
    assert pools["sglang"] > pools["vllm"]  # activations live outside the static share


def test_why_not_names_what_is_too_big_by_how_much_and_the_remedy(deploy):
    text = why_not(deploy("Llama-3.1-70B", "bf16"))
    assert "bf16 weights 131.4 GiB" in text
    assert "GiB too much" in text
    assert "tensor parallelism 2 would fit" in text
    assert fits(deploy("Llama-3.1-70B", "bf16", tensor=2))
    assert why_not(deploy("Llama-3.1-70B", "bf16", tensor=2)) == ""


def test_why_not_offers_what_is_enough_by_itself(deploy):
    many = why_not(deploy("Llama-3.1-70B", "bf16", tensor=2, max_num_seqs=1024))
    assert "short of one sequence of 8,192 tokens" in many
    assert "max_num_seqs 256 would fit" in many
    long = why_not(deploy("Llama-3.1-70B", "fp8", max_model_len=32_768))
    assert "max_model_len 6," in long
    assert "tensor parallelism 2 would fit" in long
    large = why_not(deploy("llama-3.1-405b", "bf16", tensor=8))
    assert "weights of 11." in large
    huge = why_not(deploy("moonshotai/Kimi-K3", "mxfp4", tensor=8))
    assert "no tensor parallelism inside the link domain of 8 GPUs fits" in huge
    assert "do not divide" in why_not(deploy("Llama-3.1-70B", "fp8", tensor=3))


names = st.sampled_from(sorted(MODELS))
tensors = st.sampled_from([1, 2, 4, 8, 16])
contexts = st.lists(st.integers(0, 2**20), min_size=1, max_size=6)


@given(names, tensors, contexts, st.sampled_from([1.0, 2.0]))
def test_a_longer_context_never_holds_less(name, tensor, tokens, width):
    held = kv_bytes(MODELS[name], sorted(tokens), width, Parallelism(tensor=tensor))
    assert (held >= 0).all()
    assert (np.diff(held) >= 0).all()
    slope = kv_bytes_per_token_per_gpu(MODELS[name], width, Parallelism(tensor=tensor))
    assert (held <= np.sort(tokens) * slope + held.min() + 1e9).all()


@given(names, tensors, st.integers(1, 2**20))
def test_more_tensor_parallelism_or_fewer_bits_never_hold_more(name, tensor, tokens):
    wide, narrow = (kv_bytes(MODELS[name], tokens, w, Parallelism(tensor=tensor)) for w in (2.0, 1.0))
    split = kv_bytes(MODELS[name], tokens, 2.0, Parallelism(tensor=2 * tensor))
    assert narrow <= wide
    # Mamba's groups are copied once TP exceeds them: the convolution's share of the state stops shrinking.
    assert split <= wide * (1 + 1e-12)


@given(names, tensors, st.integers(0, 10**12))  # whole bytes: a fraction of one may round to no token at all
def test_the_longest_context_is_the_inverse_of_its_bytes(name, tensor, pool):
    footprint = kv_footprint(MODELS[name], 2.0, Parallelism(tensor=tensor))
    tokens = footprint.longest_tokens(pool)
    if tokens == 0:
        assert pool <= footprint.state_bytes_per_sequence
    elif np.isfinite(tokens):
        assert float(footprint.bytes_at(tokens)) == pytest.approx(pool, rel=1e-9, abs=1)


@settings(deadline=None)
@given(
    name=names,
    weights=st.sampled_from(["bf16", "fp8", "nvfp4"]),
    gib=st.floats(10, 300),
    tensor=tensors,
    sequences=st.sampled_from([1, 64, 1024]),
    length=st.none() | st.integers(1, 10**6),
    engine=st.sampled_from(["vllm", "trtllm", "sglang"]),
)
def test_memory_adds_up_and_capacity_is_never_negative(deploy, name, weights, gib, tensor, sequences, length, engine):
    deployment = deploy(
        name, weights, gib, tensor=tensor, max_num_seqs=sequences, max_model_len=length, engine_name=engine
    )
    held = memory(deployment)
    assert held.kv_capacity_tokens >= 0
    assert held.pool_bytes >= 0
    assert held.weight_bytes == pytest.approx(sum(held.weights.values()))
    assert held.fits == (why_not(deployment) == "")
    fixed = held.weight_bytes + held.activation_bytes + held.framework_bytes
    if held.fits:
        assert fixed + held.pool_bytes <= held.hbm_bytes * (1 + 1e-9)
        assert held.sequences_at(held.required_tokens) >= 1 - 1e-9
    if held.pool_bytes and held.kv.is_uniform:
        assert held.kv_capacity_tokens * held.kv.growing_bytes_per_token <= held.pool_bytes


@settings(deadline=None)
@given(name=names, gib=st.floats(20, 300), tensor=tensors)
def test_a_larger_gpu_or_fewer_sequences_never_hold_fewer_tokens(deploy, name, gib, tensor):
    tokens = [
        memory(deploy(name, "fp8", size, tensor=tensor, max_num_seqs=n, max_model_len=4096)).kv_capacity_tokens
        for size, n in ((gib, 1024), (gib, 256), (gib * 1.1, 256))
    ]
    assert tokens == sorted(tokens)
