"""Terms that depend on a step's tokens alone: how they grow, how parallelism splits them, what they cost at least."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.latency.deployments import CATALOGUE, KINDS, deployment, steps
from trilemma.catalogue.figure import Source
from trilemma.catalogue.precision import Role
from trilemma.deployment.weights import active_params, matrices, weight_bytes_per_gpu
from trilemma.latency.forward import Gemms, elementwise, exchanges, expert_layers, experts, gather, gemms
from trilemma.latency.gemm import gemm_cost
from trilemma.latency.kernels import Kernels
from trilemma.latency.step import OUTSIDE

# The fixture below changes nothing between examples.
law = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
every_kind = pytest.mark.parametrize("kind", sorted(KINDS))
kinds = st.sampled_from(sorted(KINDS))
TOKENS = np.array([1.0, 2.0, 3.0, 8.0, 33.0, 256.0, 2048.0, 16384.0])
LLAMA, QWEN, DEEPSEEK = "meta-llama/Meta-Llama-3.1-70B", "Qwen/Qwen3-235B-A22B", "deepseek-ai/DeepSeek-V3"


@pytest.fixture
def data_sheet(monkeypatch):
    """No kernel is measured: base times alone."""
    monkeypatch.setattr("trilemma.latency.kernels.find_surface", lambda *_: None)


def kernels_of(d) -> Kernels:
    return Kernels(d.accelerator, d.engine.name)


def inside(d, *, mtp=False):
    """The matrices that every token of a step is multiplied by, experts aside."""
    found = matrices(d.model, mtp=mtp)
    return [m for m in found if m.is_gemm and m.role not in OUTSIDE and m.is_mtp == mtp]


def terms(d, tokens=TOKENS):
    """Costs by name of one deployment."""
    kernels = kernels_of(d)
    return {
        "GEMMs": gemms(gather(inside(d), d), tokens, kernels),
        "experts": experts(expert_layers(d, mtp=False), tokens, d, kernels),
        "collectives": exchanges(tokens, d, kernels),
        "elementwise": elementwise(tokens, d),
    }


def expected_terms(d):
    some = {"GEMMs", "elementwise"}
    some |= {"experts"} if d.model.is_moe else set()
    return some | ({"collectives"} if d.parallelism.stage_gpus > 1 else set())


# Every architecture ------------------------------------------------------------------------------------------------


@every_kind
def test_every_term_is_finite_and_takes_time_where_there_is_work(kind):
    """With the shipped kernels."""
    d = deployment(*KINDS[kind])
    for name, cost in terms(d).items():
        for part in ("seconds", "memory_s", "compute_s", "link_s", "fixed_s"):
            assert getattr(cost, part).shape == TOKENS.shape, name
            assert np.isfinite(getattr(cost, part)).all(), name
            assert (getattr(cost, part) >= 0).all(), name
        assert (cost.seconds > 0).all() == (name in expected_terms(d)), name
        if name in expected_terms(d):
            assert cost.seconds[-1] > 3 * cost.seconds[0], name  # 16,384 tokens and one


@pytest.mark.usefixtures("data_sheet")
@every_kind
def test_every_term_rises_with_tokens(kind):
    d = deployment(*KINDS[kind])
    for name, cost in terms(d).items():
        if name in expected_terms(d):
            assert (np.diff(cost.seconds) > 0).all(), name


@pytest.mark.usefixtures("data_sheet")
@law
@given(kinds, st.lists(st.floats(1, 20_000), min_size=1, max_size=4))
def test_tokens_are_priced_one_by_one(kind, tokens):
    d = deployment(*KINDS[kind])
    together = terms(d, np.array(tokens))
    for i, n in enumerate(tokens):
        for name, cost in terms(d, np.array([n])).items():
            assert cost.seconds[0] == pytest.approx(together[name].seconds[i], rel=1e-9), name


@pytest.mark.usefixtures("data_sheet")
@law
@given(
    kinds, st.sampled_from(["hbm_bytes_per_s", "link_bytes_per_s", "network_bytes_per_s", "flops"]), st.floats(1, 10)
)
def test_better_hardware_is_never_slower(kind, what, factor):
    d = deployment(*KINDS[kind])
    value = getattr(d.accelerator, what)
    better = {name: peak * factor for name, peak in value.items()} if what == "flops" else value * factor
    faster = replace(d, accelerator=replace(d.accelerator, **{what: better}))
    before, after = terms(d), terms(faster)
    for name, cost in after.items():
        assert (cost.seconds <= before[name].seconds * (1 + 1e-12)).all(), name


@pytest.mark.usefixtures("data_sheet")
@every_kind
def test_no_pass_beats_the_data_sheet(kind):
    """Reading the weights of GEMMs once and multiplying by all a token uses, at peak, over all GPUs."""
    d = deployment(*KINDS[kind])
    found = terms(d)
    everyone = TOKENS * d.parallelism.data
    read_s = sum(m.params * d.precision.bytes_per_weight(m.role) for m in inside(d)) / d.accelerator.hbm_bytes_per_s
    assert (found["GEMMs"].seconds > read_s / d.parallelism.gpus).all()
    flops = 2 * everyone * (active_params(d.model, count_embedding=False) - d.model.hidden * d.model.vocab)
    multiply_s = flops / max(d.accelerator.flops.values()) / d.parallelism.gpus
    assert (found["GEMMs"].seconds + found["experts"].seconds > multiply_s * (1 - 1e-9)).all()


@every_kind
def test_measured_kernels_are_no_wonders(kind, monkeypatch):
    """Shipped kernels take between half the data sheet's roofline and a few dozen times it. Experts at few tokens
    take longest: they launch for every layer what the roofline has no words for."""
    d = deployment(*KINDS[kind])
    measured = terms(d)
    monkeypatch.setattr("trilemma.latency.kernels.find_surface", lambda *_: None)
    for name, base in terms(d).items():
        if name in expected_terms(d):
            ratio = measured[name].seconds / base.seconds
            assert (ratio > 0.5).all(), name
            assert (ratio < 12).all(), name


def test_source_and_notes_say_what_stands_in():
    d = deployment(LLAMA, "h100_sxm", tp=4)
    kernels = kernels_of(d)
    gemms(gather(inside(d), d), TOKENS, kernels)
    assert (kernels.source, kernels.notes) == (Source.FITTED, {})
    d = deployment("google/gemma-3-27b-it", "mi300x", tp=2)
    kernels = kernels_of(d)
    gemms(gather(inside(d), d), TOKENS, kernels)
    assert kernels.source > Source.FITTED
    assert kernels.notes


# GEMMs -------------------------------------------------------------------------------------------------------------


@every_kind
def test_gathering_counts_every_matrix_once(kind):
    d = deployment(*KINDS[kind])
    found = gather(inside(d), d)
    assert sum(g.calls.sum() for g in found) == sum(m.layers for m in inside(d))
    assert len({g.form for g in found}) == len(found)
    for g in found:
        assert g.n.shape == g.k.shape == g.ranks.shape == (g.calls.size, 1)
        shapes = {(n, k, r) for n, k, r in zip(g.n.flat, g.k.flat, g.ranks.flat, strict=True)}
        assert len(shapes) == g.calls.size
    weights = sum(float((g.calls * (g.n * g.k)[:, 0]).sum()) for g in found)
    assert weights >= sum(m.params for m in inside(d)) / d.parallelism.gpus * (1 - 1e-9)


@pytest.mark.usefixtures("data_sheet")
def test_gemms_are_their_kernels_one_after_another():
    d = deployment(LLAMA, "h100_sxm")
    two = Gemms(
        form="bf16",
        n=np.array([[1024.0], [4096.0]]),
        k=np.array([[8192.0], [512.0]]),
        calls=np.array([3.0, 5.0]),
        ranks=np.array([[1.0], [4.0]]),
    )
    found = gemms([two, two], TOKENS, kernels_of(d))
    one = gemm_cost(TOKENS, 1024, 8192, accelerator=d.accelerator, form="bf16")
    other = gemm_cost(4 * TOKENS, 4096, 512, accelerator=d.accelerator, form="bf16")
    assert found.seconds == pytest.approx(2 * (3 * one.seconds + 5 * other.seconds))
    assert found.compute_s == pytest.approx(2 * (3 * one.compute_s + 5 * other.compute_s))
    assert gemms([], TOKENS, kernels_of(d)).seconds.tolist() == [0] * TOKENS.size


@pytest.mark.usefixtures("data_sheet")
@pytest.mark.parametrize("precision", ["bf16", "fp8"])
@pytest.mark.parametrize("tp", [1, 4])
def test_llama_reads_its_weights_once_and_multiplies_by_all_of_them(precision, tp):
    """80 layers of 4 matrices; the head and the embedding are no part of it."""
    d = deployment(LLAMA, "h100_sxm", precision=precision, tp=tp)
    cost = gemms(gather(inside(d), d), np.array([1.0, 1024.0]), kernels_of(d))
    held = weight_bytes_per_gpu(d.model, d.precision, d.parallelism)
    weights_s = (held["attention"] + held["mlp"]) / d.accelerator.hbm_bytes_per_s
    assert cost.memory_s[0] == pytest.approx(weights_s, rel=0.002)
    params = active_params(d.model, count_embedding=False) - d.model.hidden * d.model.vocab
    assert cost.compute_s[1] == pytest.approx(2 * 1024 * params / tp / d.accelerator.flops[precision], rel=0.001)
    assert cost.fixed_s.tolist() == [pytest.approx(320 * 2e-6)] * 2


@pytest.mark.usefixtures("data_sheet")
@pytest.mark.parametrize("accelerator", ["h100_sxm", "b200_sxm", "l40s", "mi300x"])
def test_fp8_gemms_beat_bf16_where_memory_binds(accelerator):
    few = np.array([1.0, 4.0, 16.0])
    fp8, bf16 = (
        terms(deployment(LLAMA, accelerator, precision=name, tp=4), few)["GEMMs"].seconds for name in ("fp8", "bf16")
    )
    assert (fp8 < 0.75 * bf16).all()
    assert (fp8 > 0.4 * bf16).all()


# Parallelism -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize(
    ("model", "accelerator", "precision"),
    [
        (LLAMA, "h100_sxm", "fp8"),
        (LLAMA, "b200_sxm", "bf16"),
        (QWEN, "h200_sxm", "fp8"),
        (DEEPSEEK, "b200_sxm", "fp8"),
        ("openai/gpt-oss-120b", "h100_sxm", "mxfp4"),
        ("Qwen/Qwen3.5-397B-A17B", "b200_sxm", "fp8"),
    ],
)
def test_tensor_parallelism_splits_gemms_and_experts(model, accelerator, precision, measured, monkeypatch):
    if not measured:
        monkeypatch.setattr("trilemma.latency.kernels.find_surface", lambda *_: None)
    one, four = (terms(deployment(model, accelerator, precision=precision, tp=tp)) for tp in (1, 4))
    for name in ("GEMMs", "experts"):
        if one[name].seconds.any():
            assert (four[name].seconds < one[name].seconds).all(), name
            assert (four[name].seconds >= one[name].seconds / 4 * (0.8 if measured else 1 - 1e-9)).all(), name
    assert not one["collectives"].seconds.any()
    assert (four["collectives"].seconds > 0).all()
    assert four["elementwise"].seconds.tolist() == one["elementwise"].seconds.tolist()


@pytest.mark.usefixtures("data_sheet")
def test_attention_data_parallelism_shares_experts_and_not_attention():
    """Eight ranks of one token each reach the experts of eight tokens; every rank holds all of attention's weights."""
    eight = np.array([8.0, 64.0, 4096.0])
    ranks = deployment(DEEPSEEK, "h200_sxm", "sglang", "fp8", 1, 8, 8)
    tensor = deployment(DEEPSEEK, "h200_sxm", "sglang", "fp8", 8, 1, 8)
    shared, split = terms(ranks, eight / 8), terms(tensor, eight)
    assert shared["experts"].seconds == pytest.approx(split["experts"].seconds)
    assert (shared["GEMMs"].memory_s > 2 * split["GEMMs"].memory_s)[0]
    held = weight_bytes_per_gpu(ranks.model, ranks.precision, ranks.parallelism)
    read_s = (held["attention"] + held["mlp"] + held["shared_expert"]) / ranks.accelerator.hbm_bytes_per_s
    assert shared["GEMMs"].memory_s[0] == pytest.approx(read_s, rel=0.15)  # kv_up's and routers' BF16 beside it


@pytest.mark.usefixtures("data_sheet")
def test_dense_layers_under_attention_data_parallelism_see_every_ranks_tokens():
    """The MLP is split over all GPUs of the stage, attention over one rank's."""
    d = deployment(LLAMA, "h100_sxm", "sglang", "fp8", 2, 4)
    for g in gather(inside(d), d):
        ranks = {(n, k): r for n, k, r in zip(g.n.flat, g.k.flat, g.ranks.flat, strict=True)}
        assert ranks[2 * 28672 / 8, 8192] == 4
        assert ranks[8192, 28672 / 8] == 4
        assert ranks[8192, 8192 / 2] == 1  # o


@pytest.mark.usefixtures("data_sheet")
def test_expert_groups_hold_whole_experts_and_cost_the_same_when_all_are_reached():
    """Four groups of 32 experts, or all 128 in quarters: the same weights and products on a GPU."""
    groups = deployment(QWEN, "h200_sxm", precision="fp8", tp=4, ep=4)
    pieces = deployment(QWEN, "h200_sxm", precision="fp8", tp=4, ep=1)
    a, b = terms(groups)["experts"], terms(pieces)["experts"]
    assert a.compute_s == pytest.approx(b.compute_s)
    assert a.memory_s[:5] == pytest.approx(b.memory_s[:5], rel=0.02)
    assert (a.memory_s <= b.memory_s * (1 + 1e-12)).all()  # a pair's input is read by one group instead of four
    both = terms(deployment(QWEN, "h200_sxm", precision="fp8", tp=4, ep=2))["experts"]
    assert both.compute_s == pytest.approx(b.compute_s)


@pytest.mark.usefixtures("data_sheet")
def test_more_groups_than_gpus_are_as_many_as_gpus():
    many, four = (terms(deployment(QWEN, "h200_sxm", precision="fp8", tp=4, ep=ep))["experts"] for ep in (8, 4))
    assert many.seconds.tolist() == four.seconds.tolist()


@pytest.mark.usefixtures("data_sheet")
def test_experts_read_the_weights_that_are_touched():
    """Mixtral 8x22B, TP 8: 56 layers of 8 experts of 3 x 6144 x 16384, two a token; 64 tokens touch all eight."""
    d = deployment("mistralai/Mixtral-8x22B-v0.1", "h100_sxm", tp=8)
    cost = experts(expert_layers(d, mtp=False), np.array([1.0, 64.0]), d, kernels_of(d))
    read_s = 56 * 2 * 3 * 6144 * 16384 / 8 / d.accelerator.hbm_bytes_per_s  # one expert of every layer
    assert cost.memory_s == pytest.approx([2 * read_s, 8 * read_s], rel=0.02)
    one_s = 2 * 2 * 56 * 3 * 6144 * 16384 / 8 / d.accelerator.flops["bf16"]
    assert cost.compute_s == pytest.approx([one_s, 64 * one_s])


def test_dense_models_have_no_experts():
    d = deployment(LLAMA, "h100_sxm", tp=4)
    assert expert_layers(d, mtp=False) == ()
    assert not experts((), TOKENS, d, kernels_of(d)).seconds.any()


def test_prediction_layers_have_experts_of_their_own():
    d = deployment(DEEPSEEK, "h200_sxm", precision="fp8", tp=8, mtp=True)
    assert sum(e.layers for e in expert_layers(d, mtp=True)) == d.model.mtp_layers == 1
    assert sum(e.layers for e in expert_layers(d, mtp=False)) == 58
    assert gather(inside(d, mtp=True), d)


# Pipeline ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("data_sheet")
@pytest.mark.parametrize(("model", "precision"), [(LLAMA, "fp8"), (QWEN, "fp8")])
@pytest.mark.parametrize("stages", [2, 4])
def test_every_micro_batch_reads_the_weights_of_every_stage(model, precision, stages):
    """A round of as many micro-batches as stages: each stage reads its share of the layers once for each of them, and
    multiplies the round's tokens once."""
    whole = steps(model, "h200_sxm", precision=precision, tp=2)
    staged = steps(model, "h200_sxm", precision=precision, tp=2, pp=stages)
    round_, micro = staged.by_tokens(TOKENS), whole.by_tokens(TOKENS / stages)
    for name, cost in round_.items():
        if name == "collectives":  # and hands every micro-batch on
            assert (cost.seconds > micro[name].seconds).all()
            continue
        assert cost.seconds == pytest.approx(micro[name].seconds), name
    one = whole.by_tokens(TOKENS)
    d = staged.deployment
    held = weight_bytes_per_gpu(d.model, d.precision, d.parallelism)
    weights_s = (held["attention"] + held.get("mlp", 0.0)) / d.accelerator.hbm_bytes_per_s
    assert (round_["GEMMs"].memory_s >= stages * weights_s * (1 - 1e-9)).all()
    for name in ("GEMMs", "experts"):
        assert round_[name].compute_s == pytest.approx(one[name].compute_s / stages)
        assert (round_[name].seconds <= one[name].seconds * (1 + 1e-12)).all(), name
        assert (round_[name].seconds >= one[name].seconds / stages).all(), name
    all_experts_s = held.get("expert", 0.0) / d.accelerator.hbm_bytes_per_s
    assert round_["experts"].memory_s[-1] >= stages * all_experts_s * (1 - 1e-9)


# Collectives and elementwise work ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("data_sheet")
def test_two_all_reduces_a_layer():
    d = deployment(LLAMA, "h100_sxm", tp=4)
    cost = exchanges(TOKENS, d, kernels_of(d))
    wire_s = 2 * 3 / 4 * TOKENS * 8192 * 2 / d.accelerator.link_bytes_per_s
    assert cost.link_s == pytest.approx(160 * wire_s)
    assert cost.seconds == pytest.approx(160 * (wire_s + 3e-6))


@pytest.mark.usefixtures("data_sheet")
def test_attention_data_parallelism_gathers_and_scatters_around_the_mlp():
    """Without tensor parallelism attention needs nobody; each MLP's GPUs exchange all ranks' tokens twice."""
    d = deployment(DEEPSEEK, "h200_sxm", "sglang", "fp8", 1, 8, 8)
    cost = exchanges(TOKENS, d, kernels_of(d))
    wire_s = 7 / 8 * 8 * TOKENS * 7168 * 2 / d.accelerator.link_bytes_per_s
    assert cost.link_s == pytest.approx(61 * 2 * wire_s)
    both = deployment(DEEPSEEK, "h200_sxm", "sglang", "fp8", 2, 4, 8)
    assert (exchanges(TOKENS, both, kernels_of(both)).seconds > 61 * 7 / 8 * 4 * TOKENS * 7168 * 4 / 450e9).all()


@pytest.mark.usefixtures("data_sheet")
def test_hybrids_exchange_after_what_they_have():
    """Nemotron-H: layers are a mixer or an MLP, each with one all-reduce; no layer has both."""
    d = deployment("nvidia/Nemotron-H-56B-Base-8K", "h100_sxm", tp=8)
    cost = exchanges(np.ones(1), d, kernels_of(d))
    assert cost.fixed_s[0] == pytest.approx(d.model.layers * 3e-6)


def test_elementwise_work_crosses_hbm_once_for_every_token_and_layer():
    d = deployment(LLAMA, "h100_sxm", tp=4)
    cost = elementwise(TOKENS, d)
    assert cost.seconds == pytest.approx(80 * TOKENS * 8192 * 2 / d.accelerator.hbm_bytes_per_s)
    assert cost.binds == "HBM bandwidth"


@pytest.mark.parametrize("name", sorted(CATALOGUE.models))
def test_every_shipped_model_is_gathered_and_priced(name):
    architecture = CATALOGUE.models[name]
    for accelerator in ("h100_sxm", "b200_sxm"):
        d = deployment(name, accelerator, precision="bf16", tp=8, ep=8)
        for term, cost in terms(d, np.array([1.0, 4096.0])).items():
            expected = term in expected_terms(d)
            assert (cost.seconds > 0).all() == expected, term
    roles = {m.role for m in inside(d)}
    assert roles <= {Role.ATTENTION, Role.MLP, Role.SHARED_EXPERT, Role.ROUTER}
    assert architecture.is_moe == bool(expert_layers(d, mtp=False))
