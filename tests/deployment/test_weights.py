"""Parameters and weight bytes: against published figures, then as laws of how tensors spread."""

import math
import tomllib
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilemma.catalogue.model import Attention, AttentionKind, Block, Mlp, Model
from trilemma.catalogue.models import read_model_rows
from trilemma.catalogue.precision import Role
from trilemma.deployment.spec import Parallelism
from trilemma.deployment.validity import problems
from trilemma.deployment.weights import (
    Split,
    SplitDim,
    active_params,
    matrices,
    params_per_gpu,
    total_params,
    weight_bytes_per_gpu,
)
from trilemma.units import GIB

SHIPPED = files("trilemma.catalogue").joinpath("data/models.toml").read_text(encoding="utf-8")
MODELS = read_model_rows(tomllib.loads(SHIPPED)["models"], where="models.toml")

# (model, published total in billions, with the vision tower?, source)
TOTALS = [
    ("meta-llama/Meta-Llama-3.1-8B", 8.03, False, "model card"),
    ("meta-llama/Meta-Llama-3.1-70B", 70.6, False, "model card"),
    ("meta-llama/Meta-Llama-3.1-405B", 405.85, False, "model card"),
    ("meta-llama/Llama-2-70b-hf", 68.98, False, "model card"),
    ("meta-llama/Llama-3.2-1B", 1.23, False, "model card"),
    ("meta-llama/Llama-3.2-3B", 3.21, False, "model card"),
    ("meta-llama/Llama-4-Scout-17B-16E-Instruct", 109.0, False, "Llama 4 model card"),
    ("meta-llama/Llama-4-Maverick-17B-128E-Instruct", 400.0, False, "Llama 4 model card"),
    ("mistralai/Mistral-7B-v0.1", 7.24, False, "model card"),
    ("mistralai/Mixtral-8x7B-v0.1", 46.7, False, "arXiv 2401.04088"),
    ("mistralai/Mixtral-8x22B-v0.1", 141.0, False, "Mistral, Cheaper, Better, Faster, Stronger"),
    ("deepseek-ai/DeepSeek-V3", 671.0, False, "arXiv 2412.19437"),
    ("deepseek-ai/DeepSeek-V4-Flash", 284.0, False, "arXiv 2606.19348"),
    ("moonshotai/Kimi-K2-Instruct", 1040.0, False, "arXiv 2507.20534"),
    ("zai-org/GLM-5", 744.0, False, "arXiv 2602.15763"),
    ("MiniMaxAI/MiniMax-M2.5", 229.9, False, "MiniMax-M2 model card"),
    ("MiniMaxAI/MiniMax-M3", 428.0, False, "model card"),
    ("XiaomiMiMo/MiMo-V2-Flash", 309.0, False, "model card"),
    ("stepfun-ai/Step-3.7-Flash", 196.0, False, "vLLM recipes: language backbone"),
    ("openai/gpt-oss-120b", 116.83, False, "arXiv 2508.10925, table 1"),
    ("openai/gpt-oss-20b", 20.91, False, "arXiv 2508.10925, table 1"),
    ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", 31.6, False, "Nemotron 3 Nano report"),
    ("nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-FP8", 120.6, False, "Nemotron 3 Super report"),
    ("nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16", 550.0, False, "model card"),
    ("nvidia/Nemotron-H-56B-Base-8K", 56.0, False, "arXiv 2504.03624"),
    ("nvidia/Llama-3_3-Nemotron-Super-49B-v1", 49.9, False, "model card"),
    ("google/gemma-3-12b-it", 11.77, False, "arXiv 2503.19786, table 1: 1,012M + 10,759M"),
    ("google/gemma-3-27b-it", 27.02, False, "arXiv 2503.19786, table 1: 1,416M + 25,600M"),
    ("google/gemma-4-26B-A4B", 25.2, False, "model card (vision encoder apart)"),
    ("nvidia/Gemma-4-31B-IT-NVFP4", 30.7, False, "model card (vision encoder apart)"),
    ("Qwen/Qwen2-7B", 7.62, False, "model card"),
    ("Qwen/Qwen2-72B", 72.7, False, "model card"),
    ("Qwen/Qwen2.5-32B", 32.5, False, "model card"),
    ("Qwen/Qwen3-8B", 8.2, False, "model card"),
    ("Qwen/Qwen3-14B", 14.8, False, "model card"),
    ("Qwen/Qwen3-32B", 32.8, False, "model card"),
    ("Qwen/Qwen3-30B-A3B", 30.5, False, "model card"),
    ("Qwen/Qwen3-235B-A22B", 235.0, False, "arXiv 2505.09388"),
    ("Qwen/Qwen3-Coder-480B-A35B-Instruct", 480.0, False, "model card"),
    ("Qwen/Qwen3.5-397B-A17B", 397.0, False, "model card"),
    ("Qwen/Qwen3-VL-8B-Instruct", 8.77, True, "safetensors count of the model page"),
    ("Qwen/Qwen3-VL-32B-Instruct", 33.4, True, "safetensors count of the model page"),
]

# (model, published active billions, what the publisher counts, source)
ACTIVE = [
    ("deepseek-ai/DeepSeek-V3", 37, "all", "arXiv 2412.19437"),
    ("deepseek-ai/DeepSeek-V4-Pro", 49, "no embedding", "arXiv 2606.19348"),
    ("deepseek-ai/DeepSeek-V4-Flash", 13, "no embedding", "arXiv 2606.19348"),
    ("Qwen/Qwen3-235B-A22B", 22, "all", "arXiv 2505.09388"),
    ("Qwen/Qwen3-30B-A3B", 3.3, "all", "model card"),
    ("Qwen/Qwen3-Coder-480B-A35B-Instruct", 35, "all", "model card"),
    ("Qwen/Qwen3.5-397B-A17B", 17, "all", "model card"),
    ("openai/gpt-oss-120b", 5.13, "no embedding", "arXiv 2508.10925, table 1"),
    ("openai/gpt-oss-20b", 3.61, "no embedding", "arXiv 2508.10925, table 1"),
    ("mistralai/Mixtral-8x7B-v0.1", 12.9, "all", "Mistral, Mixtral of experts"),
    ("mistralai/Mixtral-8x22B-v0.1", 39, "all", "Mistral, Cheaper, Better, Faster, Stronger"),
    ("meta-llama/Llama-4-Scout-17B-16E-Instruct", 17, "all", "Llama 4 model card"),
    ("meta-llama/Llama-4-Maverick-17B-128E-Instruct", 17, "all", "Llama 4 model card"),
    ("moonshotai/Kimi-K2-Instruct", 32.6, "all", "arXiv 2507.20534"),
    ("zai-org/GLM-5", 40, "neither", "arXiv 2602.15763"),
    ("MiniMaxAI/MiniMax-M2.5", 9.8, "neither", "MiniMax-M2 model card"),
    ("XiaomiMiMo/MiMo-V2-Flash", 15, "all", "model card"),
    ("stepfun-ai/Step-3.7-Flash", 11, "all", "vLLM recipes"),
    ("google/gemma-4-26B-A4B", 3.8, "all", "model card"),
    ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", 3.2, "no embedding", "Nemotron 3 Nano report (3.6 with)"),
    ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", 3.6, "all", "Nemotron 3 Nano report"),
    ("nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16", 55, "no embedding", "model card"),
]

# (model, precision, GPUs, published GiB per GPU, source)
WEIGHTS = [
    ("openai/gpt-oss-120b", "mxfp4", 1, 60.8, "arXiv 2508.10925, table 1: checkpoint size"),
    ("openai/gpt-oss-20b", "mxfp4", 1, 12.8, "arXiv 2508.10925, table 1: checkpoint size"),
    ("meta-llama/Meta-Llama-3.1-8B", "bf16", 1, 14.99, "vLLM log: model weights take"),
    ("meta-llama/Meta-Llama-3.1-70B", "fp8", 4, 16.96, "vLLM 0.11.2 log, Llama-3.3-70B-Instruct-FP8-dynamic"),
    ("deepseek-ai/DeepSeek-V3", "fp8", 8, 79.74, "vLLM 0.11.2 log, DeepSeek-R1-0528 on 8 x H200"),
    ("zai-org/GLM-5.2", "nvfp4", 4, 106.69, "vLLM 0.26 log, GLM-5.2-NVFP4 on 4 x B200"),
    ("Qwen/Qwen3-30B-A3B", "bf16", 4, 14.25, "vLLM 0.8.5 log, TP 4"),
]


@pytest.mark.parametrize(("name", "billions", "vision", "source"), TOTALS, ids=lambda v: str(v).split("/")[-1])
def test_total_parameters_are_the_published_ones(name, billions, vision, source):
    assert total_params(MODELS[name], vision=vision) / 1e9 == pytest.approx(billions, rel=0.015), source


@pytest.mark.parametrize(("name", "billions", "convention", "source"), ACTIVE, ids=lambda v: str(v).split("/")[-1])
def test_active_parameters_are_the_published_ones_counted_alike(name, billions, convention, source):
    model = MODELS[name]
    ours = active_params(model, count_embedding=convention == "all")
    if convention == "neither":
        ours -= model.hidden * model.vocab
    digit = 0.5 * 10.0 ** -(len(str(billions).partition(".")[2]))
    assert ours / 1e9 == pytest.approx(billions, rel=0.02, abs=digit), source


@pytest.mark.parametrize(("name", "weights", "gpus", "gib", "source"), WEIGHTS, ids=lambda v: str(v).split("/")[-1])
def test_weight_bytes_are_those_engines_report(precision, name, weights, gpus, gib, source):
    held = weight_bytes_per_gpu(MODELS[name], precision(weights), Parallelism(tensor=gpus))
    assert sum(held.values()) / GIB == pytest.approx(gib, rel=0.015), source


def test_a_table_of_published_figures_is_long_enough():
    assert len({name for name, *_ in TOTALS}) >= 15


def by_name(model, **more):
    return {m.name: m for m in matrices(model, **more)}


def test_llama_70b_matrices_have_the_shapes_engines_multiply():
    named = by_name(MODELS["meta-llama/Meta-Llama-3.1-70B"])
    eight = Parallelism(tensor=8)
    sixteen = Parallelism(tensor=16)
    assert named["qkv"].shape_per_gpu(eight) == (8192, 1280, 1)
    assert named["qkv"].shape_per_gpu(sixteen) == (8192, 512 + 256, 1)  # KV heads copied past 8
    assert named["o"].shape_per_gpu(eight) == (1024, 8192, 1)
    assert named["gate_up"].shape_per_gpu(eight) == (8192, 7168, 1)
    assert named["down"].shape_per_gpu(eight) == (3584, 8192, 1)
    assert named["lm_head"].shape_per_gpu(eight) == (8192, 16032, 1)
    assert named["embedding"].shape_per_gpu(eight) == (16032, 8192, 1)
    assert not named["embedding"].is_gemm


def test_experts_divide_over_groups_then_inside_one():
    named = by_name(MODELS["deepseek-ai/DeepSeek-V3"])
    tensor_only, groups = Parallelism(tensor=8), Parallelism(data=8, expert=8)
    pairs = Parallelism(tensor=8, expert=4)
    assert named["expert_gate_up"].shape_per_gpu(tensor_only) == (7168, 512, 256)
    assert named["expert_gate_up"].shape_per_gpu(groups) == (7168, 4096, 32)
    assert named["expert_gate_up"].shape_per_gpu(pairs) == (7168, 2048, 64)
    assert named["expert_down"].shape_per_gpu(pairs) == (1024, 7168, 64)
    for parallelism in (tensor_only, groups, pairs):
        assert params_per_gpu(named["expert_down"], parallelism) * 8 == named["expert_down"].params


def test_attention_dp_holds_the_whole_attention_on_every_rank(precision):
    model = MODELS["deepseek-ai/DeepSeek-V3"]
    alone = weight_bytes_per_gpu(model, precision("fp8"), Parallelism())
    spread = weight_bytes_per_gpu(model, precision("fp8"), Parallelism(data=8, expert=8))
    assert spread["attention"] == alone["attention"]
    assert spread["expert"] == pytest.approx(alone["expert"] / 8)


def test_mla_down_projections_are_on_every_gpu_and_up_projections_divide():
    named = by_name(MODELS["deepseek-ai/DeepSeek-V3"])
    eight = Parallelism(tensor=8)
    assert named["q_down"].shape_per_gpu(eight) == (7168, 1536, 1)
    assert named["kv_down"].shape_per_gpu(eight) == (7168, 576, 1)
    assert named["q_up"].shape_per_gpu(eight) == (1536, 3072, 1)
    assert named["kv_up"].shape_per_gpu(eight) == (512, 4096, 1)
    assert named["o"].shape_per_gpu(eight) == (2048, 7168, 1)


def test_mtp_layers_count_only_when_asked():
    model = MODELS["deepseek-ai/DeepSeek-V3"]
    extra = total_params(model, mtp=True) - total_params(model)
    # arXiv 2412.19437 and the weights' README: 14B in the MTP module, 2.3B of them the shared embedding and head.
    assert extra / 1e9 == pytest.approx(11.5, rel=0.02)
    assert all(m.in_block is None for m in matrices(model, mtp=True) if m.is_mtp)
    assert not any(m.is_mtp for m in matrices(model))


def test_a_tied_embedding_is_one_tensor():
    named = by_name(MODELS["Qwen/Qwen3-4B"])
    assert "embedding" not in named
    assert named["lm_head"].is_gemm


def test_only_experts_shrink_under_mxfp4(precision):
    model = MODELS["openai/gpt-oss-120b"]
    plain, quantised = (weight_bytes_per_gpu(model, precision(p), Parallelism()) for p in ("bf16", "mxfp4"))
    assert {role for role in plain if plain[role] != quantised[role]} == {"expert"}


def test_the_fullest_pipeline_stage_holds_the_rounded_up_layers_and_the_heavier_end(precision):
    model = MODELS["meta-llama/Meta-Llama-3.1-405B"]  # 126 layers
    one, four = (weight_bytes_per_gpu(model, precision("bf16"), Parallelism(pipeline=p)) for p in (1, 4))
    assert four["mlp"] == pytest.approx(one["mlp"] * 32 / 126)
    assert set(one) - set(four) in ({"embedding"}, {"head"})


names = st.sampled_from(sorted(MODELS))
ways = st.sampled_from([1, 2, 4, 8, 16])


@st.composite
def deployments(draw):
    model = MODELS[draw(names)]
    parallelism = Parallelism(tensor=draw(ways), data=draw(ways), pipeline=draw(st.sampled_from([1, 2, 3])))
    if model.is_moe:
        groups = [g for g in (1, 2, 4, 8, 16, 32) if parallelism.stage_gpus % g == 0]
        parallelism = Parallelism(
            tensor=parallelism.tensor,
            data=parallelism.data,
            pipeline=parallelism.pipeline,
            expert=draw(st.sampled_from(groups)),
        )
    return model, parallelism


@settings(deadline=None)
@given(deployments())
def test_what_gpus_hold_together_is_the_model_and_more_only_where_copied(pair):
    model, p = pair
    for m in matrices(model):
        together = params_per_gpu(m, p) * p.gpus
        assert together >= m.params * (1 - 1e-12)
        copied_over_ranks = m.split is Split.TENSOR and p.data > 1
        capped = m.ways(p) < (p.tensor if m.split is Split.TENSOR else p.stage_gpus)
        kv_copied = m.capped_cols and m.capped_ways < m.ways(p)
        once_a_stage = m.in_block is None and p.pipeline > 1
        if not (m.split is Split.REPLICATED or copied_over_ranks or capped or kv_copied or once_a_stage):
            assert together == pytest.approx(m.params)


@settings(deadline=None)
@given(deployments())
def test_shapes_per_gpu_cover_what_params_per_gpu_counts(pair):
    model, p = pair
    for m in matrices(model):
        rows, cols, copies = m.shape_per_gpu(p)
        assert rows >= 1
        assert cols >= 1
        assert copies >= 1
        assert rows * cols * copies * m.layers >= params_per_gpu(m, p, share=1.0) * (1 - 1e-12)
        if m.split is not Split.REPLICATED:
            kept = m.cols if m.split_dim is SplitDim.ROWS else m.rows
            assert kept in (rows, cols)


@settings(deadline=None)
@given(deployments(), st.sampled_from(["bf16", "fp8", "nvfp4"]))
def test_more_tensor_parallelism_never_holds_more_per_gpu(precision, pair, weights):
    model, p = pair
    wider = Parallelism(tensor=p.tensor * 2, data=p.data, pipeline=p.pipeline, expert=p.expert)
    here, there = (sum(weight_bytes_per_gpu(model, precision(weights), q).values()) for q in (p, wider))
    assert there <= here * (1 + 1e-12)


@settings(deadline=None)
@given(deployments())
def test_fewer_bits_hold_fewer_bytes(precision, pair):
    model, p = pair
    bf16, fp8 = (weight_bytes_per_gpu(model, precision(w), p) for w in ("bf16", "fp8"))
    assert sum(fp8.values()) < sum(bf16.values())
    assert all(fp8[role] <= bf16[role] for role in bf16)


@given(names)
def test_active_is_at_most_total_and_equal_only_for_dense_models(name):
    model = MODELS[name]
    text = total_params(model, vision=False)
    assert (active_params(model) < text) == model.is_moe
    assert active_params(model, count_embedding=False) <= active_params(model)
    assert total_params(model) - text == model.vision_params


@given(names)
def test_every_gemm_is_named_and_has_a_role(name):
    for m in matrices(MODELS[name], mtp=True):
        assert m.name
        assert m.layers >= 1
        assert m.used <= m.copies
        assert m.role in Role
        assert not (m.is_gemm and m.role in {Role.NORM, Role.EMBEDDING, Role.VISION})


def test_counting_by_hand_a_model_small_enough_to_count():
    gqa = Attention(kind=AttentionKind.GQA, heads=4, kv_heads=2, head_dim=8, v_head_dim=8)
    moe = Mlp(experts=4, experts_per_token=2, expert_width=16, shared_width=32, shared_gate=True)
    model = Model(name="toy", hidden=32, vocab=100, blocks=(Block(count=3, attention=gqa, mlp=moe),))
    layer = 32 * (32 + 32) + 32 * 32 + 32 * 4 + 32 + 4 * 3 * 32 * 16 + 3 * 32 * 32 + 2 * 32
    assert total_params(model) == 3 * layer + 2 * 100 * 32 + 32
    assert active_params(model) == total_params(model) - 3 * 2 * 3 * 32 * 16


@pytest.mark.parametrize(
    ("parallelism", "says"),
    [
        (Parallelism(tensor=3), "64 attention heads do not divide by tensor parallelism 3"),
        (Parallelism(pipeline=81), "81 pipeline stages are more than the model's 80 layers"),
        (Parallelism(data=2), "use replicas for a dense model"),
        (Parallelism(tensor=2, expert=2), "without experts"),
        (Parallelism(tensor=0), "tensor parallelism must be at least 1, found 0"),
    ],
)
def test_a_cut_no_engine_makes_is_said(parallelism, says):
    assert any(says in reason for reason in problems(MODELS["meta-llama/Meta-Llama-3.1-70B"], parallelism))


def test_cuts_of_experts_and_other_heads_are_checked():
    deepseek, qwen = MODELS["deepseek-ai/DeepSeek-V3"], MODELS["Qwen/Qwen3.5-397B-A17B"]
    assert problems(deepseek, Parallelism(tensor=8, data=2, expert=16)) == ()
    assert "6 GPUs of a stage do not divide into 4 expert groups" in problems(deepseek, Parallelism(data=6, expert=4))
    assert "256 experts do not divide over 6 expert groups" in problems(deepseek, Parallelism(data=6, expert=6))
    assert "16 linear-attention key heads do not divide by tensor parallelism 32" in problems(
        qwen, Parallelism(tensor=32)
    )
    assert problems(MODELS["nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16"], Parallelism(tensor=8)) == ()
    assert math.prod((problems(model, Parallelism()) == ()) for model in MODELS.values()) == 1
