"""Routed experts: laws of routing, of the base and of the shipped surfaces, and layers as they were measured."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.latency.deployments import CATALOGUE
from trilemma.catalogue.surfaces import load_surfaces
from trilemma.latency.experts import (
    LAUNCH_S,
    expert_base_s,
    expert_cost,
    expert_features,
    expert_work,
    reached,
)

SHIPPED = {key: surface for key, surface in load_surfaces().items() if key[0] in {"moe", "moe_balanced"}}
TOKENS = 2.0 ** np.arange(15)
# hidden, inter, top_k, experts: Qwen3-235B, DeepSeek-R1, gpt-oss-120b, MiniMax-M2.5, Mixtral 8x7B, Qwen3-30B
LAYERS = [
    (4096, 1536, 8, 128),
    (7168, 2048, 8, 256),
    (2880, 2880, 4, 128),
    (3072, 1536, 8, 256),
    (4096, 14336, 2, 8),
    (2048, 768, 8, 128),
]

counts = st.tuples(st.integers(1, 32), st.integers(1, 16)).map(lambda pair: (pair[0], pair[0] * pair[1]))
tokens_drawn = st.integers(1, 20_000)


def seconds(key, tokens, layer, *, tp=1, ep=1, imbalance=1.0):
    _, accelerator, _, form = key
    hidden, inter, top_k, experts = layer
    work = expert_work(tokens, top_k=top_k, experts=experts, experts_here=experts / ep, imbalance=imbalance)
    cost = expert_cost(work, hidden=hidden, inter=inter / tp, accelerator=CATALOGUE.accelerator(accelerator), form=form)
    features = expert_features(work, hidden=hidden, inter=inter / tp, experts_here=experts / ep)
    return cost.seconds * np.exp(SHIPPED[key].log_ratio(*features))


@given(tokens_drawn, counts, st.floats(0, 1.5))
def test_tokens_reach_at_least_one_set_of_experts_and_at_most_all(tokens, sizes, skew):
    top_k, experts = sizes
    got = reached(np.array([1.0, float(tokens)]), experts, top_k, skew)
    assert got[0] == pytest.approx(top_k)
    assert top_k - 1e-9 <= got[1] <= min(experts, tokens * top_k) + 1e-9


@given(tokens_drawn, counts, st.floats(0, 1.5), st.floats(0.01, 1))
def test_skew_reaches_fewer_experts(tokens, sizes, skew, more):
    top_k, experts = sizes
    even, skewed, steeper = (
        float(reached(np.array([float(tokens)]), experts, top_k, s)[0]) for s in (0.0, skew, skew + more)
    )
    assert steeper <= skewed + 1e-9
    assert skewed <= even + 1e-9


@given(tokens_drawn, counts)
def test_ranks_share_the_work_of_one_gpu(tokens, sizes):
    top_k, experts = sizes
    whole = expert_work(np.array([float(tokens)]), top_k=top_k, experts=experts, experts_here=experts)
    part = expert_work(np.array([float(tokens)]), top_k=top_k, experts=experts, experts_here=experts / 4)
    assert 4 * part.pairs == pytest.approx(whole.pairs)
    assert 4 * part.touched == pytest.approx(whole.touched)
    assert whole.pairs == pytest.approx(tokens * top_k)


def test_imbalance_adds_pairs_to_the_fullest_rank():
    work = expert_work(np.array([512.0]), top_k=8, experts=128, experts_here=16, imbalance=1.5)
    assert work.pairs[0] == pytest.approx(1.5 * 512)
    assert work.touched[0] == pytest.approx(16, rel=1e-6)


@given(tokens_drawn, st.sampled_from(LAYERS), st.sampled_from(["bf16", "fp8", "w4a16", "mxfp4_w4a16"]))
def test_the_base_grows_with_tokens_and_shrinks_with_tensor_parallelism(tokens, layer, form):
    hidden, inter, top_k, experts = layer

    def base(t, columns):
        return expert_base_s(
            np.array([float(t)]), hidden=hidden, inter=columns, top_k=top_k, experts=experts, experts_here=experts,
            accelerator=CATALOGUE.accelerator("h100_sxm"), form=form,
        )[0]  # fmt: skip

    assert LAUNCH_S <= base(tokens, inter) <= base(tokens + 1, inter)
    assert base(tokens, inter / 2) <= base(tokens, inter)


def test_a_layer_without_gate_moves_two_matrices_of_three():
    work = expert_work(np.array([1.0]), top_k=6, experts=128, experts_here=128)
    gated, plain = (
        expert_cost(
            work, hidden=2688, inter=1856, accelerator=CATALOGUE.accelerator("h100_sxm"), form="bf16", gated=gated
        )
        for gated in (True, False)
    )
    assert plain.memory_s[0] / gated.memory_s[0] == pytest.approx(2 / 3, rel=1e-3)
    assert plain.binds == "HBM bandwidth"


def test_every_format_has_a_surface_of_all_engines_together():
    for operation, accelerator, engine, form in SHIPPED:
        assert engine in {"any", "vllm", "sglang", "trtllm"}
        assert (operation, accelerator, "any", form) in SHIPPED
        assert ("moe", accelerator, engine, form) in SHIPPED


@pytest.mark.parametrize("key", sorted(SHIPPED), ids="-".join)
def test_shipped_times_grow_with_tokens_and_shrink_with_parallelism(key):
    for layer in LAYERS:
        for tp, ep in ((1, 1), (4, 1), (1, 8)):
            once = seconds(key, TOKENS, layer, tp=tp, ep=ep)
            assert (once > 5e-6).all()
            assert (seconds(key, 2 * TOKENS, layer, tp=tp, ep=ep) >= 0.9 * once).all()
            assert (seconds(key, TOKENS, layer, tp=2 * tp, ep=ep) <= 1.08 * once).all()
            if layer[3] // ep > 1:
                assert (seconds(key, TOKENS, layer, tp=tp, ep=2 * ep) <= 1.1 * once).all()


# Microseconds per layer in CUDA graphs under balanced load, AIConfigurator's collected kernel tables (commit 095f58a,
# Apache-2.0).
MEASURED = [
    ("h200_sxm", "trtllm", "bf16", 1, LAYERS[0], 1, 1, 95),  # TensorRT-LLM 1.3.0rc20, CUTLASS
    ("h200_sxm", "vllm", "bf16", 256, LAYERS[0], 1, 1, 1196),  # vLLM 0.24.0, Triton
    ("h200_sxm", "trtllm", "bf16", 1024, LAYERS[0], 1, 8, 210),  # tokens of all eight ranks
    ("h200_sxm", "sglang", "fp8_block", 256, LAYERS[0], 4, 1, 212),  # SGLang 0.5.14, Triton
    ("h200_sxm", "trtllm", "fp8_block", 16384, LAYERS[1], 1, 1, 22032),
    ("b200_sxm", "sglang", "nvfp4", 64, LAYERS[0], 1, 1, 210),  # FlashInfer, TensorRT-LLM's kernels
    ("b200_sxm", "vllm", "nvfp4", 256, LAYERS[0], 8, 1, 77),
    ("b200_sxm", "vllm", "fp8_block", 512, LAYERS[3], 2, 1, 403),
    ("h100_sxm", "vllm", "mxfp4_w4a16", 512, LAYERS[2], 1, 1, 715),  # triton_kernels
]


@pytest.mark.parametrize(("accelerator", "engine", "form", "tokens", "layer", "tp", "ep", "microseconds"), MEASURED)
def test_measured_layers_are_met_within_15_percent(accelerator, engine, form, tokens, layer, tp, ep, microseconds):
    key = ("moe_balanced", accelerator, engine, form)
    got = seconds(key, np.array([float(tokens)]), layer, tp=tp, ep=ep)[0]
    assert got * 1e6 == pytest.approx(microseconds, rel=0.15)


def test_uneven_load_costs_time_once_experts_see_many_pairs():
    for engine in ("vllm", "trtllm"):
        uneven, even = (
            seconds((operation, "h200_sxm", engine, "fp8_block"), np.array([2.0, 2048.0]), LAYERS[0])
            for operation in ("moe", "moe_balanced")
        )
        assert uneven[1] > 1.03 * even[1]
        assert uneven[0] == pytest.approx(even[0], rel=0.1)


def test_untuned_kernels_of_the_collection_are_taken_out():
    """vLLM's per-tensor FP8 on Hopper was timed without its start-up tuning: three times BF16's time at one token."""
    one = np.ones(1)
    fp8, bf16 = (seconds(("moe", "h200_sxm", "vllm", form), one, LAYERS[0])[0] for form in ("fp8", "bf16"))
    assert fp8 < bf16
