"""What a step is made of, what binds it, and what cannot be priced."""

from dataclasses import replace

import numpy as np
import pytest

from tests.latency.deployments import CATALOGUE, deployment, model_of, steps
from trilemma.catalogue.efficiency import efficiency_for
from trilemma.catalogue.precision import Role
from trilemma.deployment.weights import matrices
from trilemma.errors import UnsupportedError
from trilemma.latency.formats import compute_format, expert_format
from trilemma.latency.step import StepModel


@pytest.mark.parametrize(
    ("accelerator", "precision", "tp"), [("h100_sxm", "fp8", 2), ("mi300x", "bf16", 1), ("b200_sxm", "fp8", 1)]
)
def test_a_70b_decodes_at_memory_speed_and_prefills_at_compute_speed(accelerator, precision, tp):
    model = steps("meta-llama/Meta-Llama-3.1-70B", accelerator, precision=precision, tp=tp, budget=8192)
    decode = model.terms(decodes=1, context_sum=1024, sampling=1)
    prefill = model.terms(prefill_tokens=8192, pair_sum=8192 * 8193, sampling=1)
    assert decode.bottleneck == "HBM bandwidth"
    assert decode.binds["GEMMs"] == "HBM bandwidth"
    assert prefill.bottleneck == "FLOPs"
    assert prefill.binds["GEMMs"] == "FLOPs"
    assert max(decode.seconds, key=decode.seconds.__getitem__) == "GEMMs"


def test_a_small_model_on_many_gpus_waits_for_overhead():
    model = steps("Qwen/Qwen3-0.6B", "b200_sxm", precision="fp8", tp=8)
    assert model.terms(decodes=1, context_sum=100, sampling=1).bottleneck == "overhead"


def test_collectives_over_the_network_wait_for_it():
    """An L40S has no fast links: at TP 8 a prefill chunk's all-reduces are the longest term."""
    model = steps("Qwen/Qwen3-32B", "l40s", precision="fp8", tp=8)
    prefill = model.terms(prefill_tokens=2048, pair_sum=2048 * 2049, sampling=1)
    assert prefill.binds["collectives"] == "link"
    assert prefill.seconds["collectives"] > prefill.seconds["GEMMs"]


def test_a_prefill_step_has_no_decode_attention_and_a_decode_step_no_prefill_attention():
    model = steps("Qwen/Qwen3-8B", "h100_sxm")
    assert "decode attention" not in model.terms(prefill_tokens=100, pair_sum=10_100, sampling=1).seconds
    assert "output head" not in model.terms(prefill_tokens=100, pair_sum=10_100).seconds
    assert "prefill attention" not in model.terms(decodes=1, context_sum=100, sampling=1).seconds


def test_prefill_attention_doubles_with_the_pairs():
    model = steps("Qwen/Qwen3-8B", "h100_sxm")
    fixed, one, two = (
        model.terms(prefill_tokens=100, pair_sum=pairs).seconds["prefill attention"] for pairs in (0, 10**9, 2 * 10**9)
    )
    assert two - one == pytest.approx(one - fixed)
    assert one - fixed == pytest.approx(10**9 * model.pair_s)


def test_pairs_price_the_flops_of_causal_attention():
    """A prompt of L tokens has L (L + 1) / 2 (query, key) pairs; each costs 4 x head_dim FLOPs per head and layer."""
    model = steps("meta-llama/Meta-Llama-3.1-70B", "h100_sxm", "vllm", "fp8", 4)
    constants = model.efficiency
    share = constants.kernels.prefill_attention.compute / (constants.engine.attention * constants.engine.prefill)
    flops = 80 * (64 / 4) * 4 * 128  # layers x heads per GPU x 4 head_dim
    expected_s = flops / (model.accelerator.flops["bf16"] * share)
    assert 2 * model.pair_s == pytest.approx(expected_s, rel=1e-9)  # A counts every pair twice


def test_context_prices_the_kv_bytes_a_decode_reads():
    """Llama-3.1-70B: 327,680 B a token over TP 4, at the memory share decode attention reaches or above."""
    model = steps("meta-llama/Meta-Llama-3.1-70B", "h100_sxm", "vllm", "fp8", 4)
    read_s = 327_680 / 4 / (model.accelerator.hbm_bytes_per_s * model.efficiency.kernels.decode_attention.memory)
    assert model.context_s >= read_s * model.efficiency.engine.attention
    assert model.context_s < 3 * read_s


def test_mla_reads_its_latent_whole_on_every_gpu():
    """DeepSeek-V3: 61 layers x 576 elements at any TP, so that more GPUs read no less."""
    at = [steps("deepseek-ai/DeepSeek-V3", "b200_sxm", "sglang", "fp8", tp) for tp in (4, 8)]
    floor_s = 61 * 576 * 2 / at[0].accelerator.hbm_bytes_per_s
    assert all(m.context_s > floor_s for m in at)
    assert 0.5 * at[0].context_s < at[1].context_s < at[0].context_s  # the heads that use it are split


@pytest.mark.parametrize("tokens", [1, 64, 4096])
def test_gemms_price_the_weights_and_flops_that_memory_counts(tokens):
    """Llama-3.1-8B on one GPU: 2 FLOPs a token and every byte once, of all weights but embedding and head."""
    model = steps("meta-llama/Meta-Llama-3.1-8B", "h100_sxm", precision="bf16")
    row, h100 = model.efficiency.kernels.gemm["bf16"], model.accelerator
    cost = model.dense_gemms(np.array([float(tokens)]))
    weights = sum(m.params for m in matrices(model.deployment.model) if m.is_gemm and m.role is not Role.HEAD)
    assert weights == pytest.approx(8.03e9 - 2 * 128_256 * 4096, rel=0.001)
    scale = model.efficiency.engine.gemm
    assert cost.compute_s[0] == pytest.approx(scale * 2 * tokens * weights / (h100.flops["bf16"] * row.compute))
    # Activations: qkv 4096 + 6144, o 4096 + 4096, gate and up 4096 + 28672, down 14336 + 4096, of 2 bytes, 32 layers.
    moved = 2 * weights + tokens * 32 * 2 * (10_240 + 8192 + 32_768 + 18_432)
    assert cost.memory_s[0] == pytest.approx(scale * moved / (h100.hbm_bytes_per_s * row.memory))


def test_experts_price_the_touched_weights_and_the_flops_of_the_chosen_ones():
    """Mixtral 8x22B: 56 layers x 8 experts of 3 x 6144 x 16384, two a token; 64 tokens touch all eight."""
    model = steps("mistralai/Mixtral-8x22B-v0.1", "h100_sxm", precision="bf16", tp=8)
    row, h100 = model.efficiency.kernels.expert["bf16"], model.accelerator
    expert = 3 * 6144 * 16384
    one, many = (model.experts(np.array([n])) for n in (1.0, 64.0))
    scale = model.efficiency.engine.expert / 8  # GPUs
    assert one.compute_s[0] == pytest.approx(scale * 56 * 2 * 2 * expert / (h100.flops["bf16"] * row.compute))
    assert many.compute_s[0] == pytest.approx(64 * one.compute_s[0])
    read_s = scale * 56 * 2 * expert / (h100.hbm_bytes_per_s * row.memory)
    assert one.memory_s[0] == pytest.approx(2 * read_s, rel=0.001)
    assert many.memory_s[0] == pytest.approx(8 * read_s, rel=0.02)


def test_the_head_reads_the_vocabulary_in_bf16_for_the_sequences_that_sample():
    """Llama-3.1-70B in FP8 keeps its head in BF16: 128,256 x 8,192 x 2 B over TP 4."""
    model = steps("meta-llama/Meta-Llama-3.1-70B", "h100_sxm", "vllm", "fp8", 4)
    row = model.efficiency.kernels.gemm["bf16"]
    cost = model.head(np.array([1.0]))
    read_s = 128_256 * 8192 * 2 / 4 / (model.accelerator.hbm_bytes_per_s * row.memory)
    assert cost.memory_s[0] == pytest.approx(read_s, rel=0.001)
    assert model.head(np.array([9.0])).fixed_s[0] - cost.fixed_s[0] == pytest.approx(
        8 * model.efficiency.engine.sequence_s
    )


@pytest.mark.parametrize("model", ["deepseek-ai/DeepSeek-V3.2", "zai-org/GLM-5", "deepseek-ai/DeepSeek-V4-Pro"])
def test_sparse_attention_grows_slower_with_context_than_dense(model):
    sparse = steps(model, "b200_sxm", precision="fp8", tp=8)
    dense = steps("deepseek-ai/DeepSeek-V3", "b200_sxm", precision="fp8", tp=8)
    assert 0 < sparse.context_s < dense.context_s
    assert sparse.window_s > 0


def test_a_window_costs_per_token_inside_it_and_a_state_per_sequence():
    window, whole = (steps(f"mistralai/Mistral-7B-v0.{version}", "h100_sxm") for version in (1, 3))
    assert (window.window_tokens, window.context_s, window.sequence_attention_s) == (4096, 0, 0)
    assert (whole.window_tokens, whole.window_s, whole.sequence_attention_s) == (0, 0, 0)
    assert window.window_s == pytest.approx(whole.context_s, rel=0.01)
    state = steps("nvidia/Nemotron-H-56B-Base-8K", "h100_sxm")
    assert state.sequence_attention_s > 0
    assert state.window_s == 0


def test_half_the_layers_of_gpt_oss_read_at_most_128_tokens():
    model = steps("openai/gpt-oss-120b", "h100_sxm", precision="mxfp4")
    assert model.window_tokens == 128
    assert model.window_s == pytest.approx(model.context_s)  # 18 layers of each, otherwise alike
    at = [model.terms(decodes=1, context_sum=c, sampling=1).seconds["decode attention"] for c in (28, 128, 228)]
    assert at[1] - at[0] == pytest.approx(2 * (at[2] - at[1]))


def test_of_several_caps_the_one_that_costs_most_is_followed_and_the_others_are_charged_whole():
    """DeepSeek-V4-Flash: 43 windows of 128 tokens; 21 layers choose 512 entries of 4 tokens, which costs more."""
    model = steps("deepseek-ai/DeepSeek-V4-Flash", "b200_sxm", precision="fp8")
    assert model.window_tokens == 4 * 512
    architecture = model.deployment.model
    blocks = tuple(replace(b, attention=replace(b.attention, window_tokens=None)) for b in architecture.blocks)
    unwindowed = model_of(replace(model.deployment, model=replace(architecture, blocks=blocks)))
    entry_s = model.window_s / 21 * 4  # of one layer
    assert model.sequence_attention_s - unwindowed.sequence_attention_s == pytest.approx(43 * 128 * entry_s)
    assert unwindowed.window_s == pytest.approx(model.window_s)
    empty = model.terms(decodes=1, context_sum=0, sampling=1).seconds["decode attention"]
    assert empty == pytest.approx(model.decode_attention_fixed_s + model.sequence_attention_s)


def test_layers_with_the_same_cap_are_counted_together():
    """Llama-4-Maverick: 24 dense and 12 MoE layers of chunked attention, of 8192 tokens both, beside 12 full ones."""
    model = steps("meta-llama/Llama-4-Maverick-17B-128E-Instruct", "h200_sxm", precision="fp8", tp=8)
    assert model.window_tokens == 8192
    assert model.window_s == pytest.approx(3 * model.context_s)
    assert model.sequence_attention_s == 0


def test_attention_dp_shares_experts_and_not_attention():
    """Eight ranks of one token each touch the experts of eight tokens; the GEMMs of attention see one."""
    ranks = steps("deepseek-ai/DeepSeek-V3", "h200_sxm", "sglang", "fp8", 1, 8, 8)
    tensor = steps("deepseek-ai/DeepSeek-V3", "h200_sxm", "sglang", "fp8", 8, 1, 8)
    eight = np.array([8.0])
    assert ranks.experts(eight / 8).seconds == pytest.approx(tensor.experts(eight).seconds)
    assert ranks.dense_gemms(eight / 8).seconds > tensor.dense_gemms(eight).seconds
    assert ranks.pair_s == pytest.approx(8 * tensor.pair_s)


def test_host_time_is_the_engine_s_own():
    d = deployment("Qwen/Qwen3-8B", "h100_sxm")
    constants = efficiency_for(d.accelerator, "vllm")
    slower = replace(constants, engine=replace(constants.engine, step_s=constants.engine.step_s + 0.5))
    one = {"decodes": 1, "context_sum": 10, "sampling": 1}
    assert StepModel(d, slower).terms(**one).total_s == pytest.approx(model_of(d).terms(**one).total_s + 0.5)


def test_pipeline_parallelism_is_refused():
    with pytest.raises(UnsupportedError, match="pipeline"):
        steps("Qwen/Qwen3-8B", "h100_sxm", pp=2)


def test_a_precision_the_accelerator_cannot_run_is_refused_with_the_reason():
    with pytest.raises(UnsupportedError, match="nvfp4 does not run on mi355x"):
        steps("Qwen/Qwen3-8B", "mi355x", precision="nvfp4")


@pytest.mark.parametrize(
    ("precision", "accelerator", "gemms", "experts"),
    [
        ("bf16", "h100_sxm", "bf16", "bf16"),
        ("fp8", "h100_sxm", "fp8", "fp8"),
        ("fp8", "a100_sxm", "bf16", "bf16"),
        ("int4", "h100_sxm", "bf16", "w4a16"),
        ("nvfp4", "b200_sxm", "fp4", "fp4"),
        ("mxfp4", "h100_sxm", "bf16", "w4a16"),
    ],
)
def test_formats(precision, accelerator, gemms, experts):
    rows = CATALOGUE.precision(precision), CATALOGUE.accelerator(accelerator)
    assert compute_format(*rows) == gemms
    assert expert_format(*rows) == experts


@pytest.mark.parametrize(
    "accelerator", ["h100_sxm", "a100_sxm", "b300_sxm", "rtx_pro_6000", "l40s", "mi300x", "mi355x"]
)
def test_every_shipped_model_gets_a_price_in_bf16_and_its_own_precision(accelerator):
    row = CATALOGUE.accelerator(accelerator)
    for name, architecture in CATALOGUE.models.items():
        for precision in dict.fromkeys(("bf16", architecture.precision)):
            try:
                compute_format(CATALOGUE.precision(precision), row)
            except UnsupportedError:
                continue
            model = steps(name, accelerator, precision=precision, tp=8)
            table = model.table()
            assert table.context_ps == pytest.approx(1e12 * model.context_s, rel=0.005), name
            assert table.window_ps == pytest.approx(1e12 * model.window_s, rel=0.005), name
            inside = min(1000, table.window_tokens)
            decode = {"decodes": 1, "sampling": 1, "context_sum": 1000, "window_sum": inside}
            one = table.step_ps(prefill_tokens=0, pair_sum=0, **decode) * 1e-12
            full = table.step_ps(prefill_tokens=2048, decodes=0, sampling=1, context_sum=0, pair_sum=2048 * 2049)
            assert 5e-4 < one < 0.2, name
            assert one < full * 1e-12 < 30, name
