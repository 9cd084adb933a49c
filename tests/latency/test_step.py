"""What a step is made of, what binds it, and what cannot be priced."""

from dataclasses import replace

import numpy as np
import pytest

from tests.latency.deployments import CATALOGUE, KINDS, deployment, model_of, parts_of, steps, table_of
from trilemma.catalogue.figure import Source
from trilemma.catalogue.precision import Role
from trilemma.deployment.weights import matrices
from trilemma.errors import UnsupportedError
from trilemma.latency.constants import efficiency_of
from trilemma.latency.formats import compute_format, kernel_form
from trilemma.latency.gemm import gemm_cost
from trilemma.latency.step import EAGER_LAYER_S, MTP_DRAFTS, StepModel

LLAMA, DEEPSEEK = "meta-llama/Meta-Llama-3.1-70B", "deepseek-ai/DeepSeek-V3"


@pytest.fixture
def data_sheet(monkeypatch):
    """No kernel is measured: base times alone."""
    monkeypatch.setattr("trilemma.latency.kernels.find_surface", lambda *_: None)


@pytest.mark.parametrize(
    ("accelerator", "precision", "tp"), [("h100_sxm", "fp8", 2), ("mi300x", "bf16", 1), ("b200_sxm", "fp8", 1)]
)
def test_a_70b_decodes_at_memory_speed_and_prefills_at_compute_speed(accelerator, precision, tp):
    model = steps(LLAMA, accelerator, precision=precision, tp=tp, budget=8192)
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
    decode = model.terms(decodes=1, context_sum=100, sampling=1).seconds
    assert "prefill attention" not in decode
    assert "prefill overhead" not in decode


def test_a_step_without_prefill_is_the_same_whatever_prefill_costs():
    d = deployment("Qwen/Qwen3-8B", "h100_sxm")
    constants = efficiency_of(d)
    dear = {"prefill": 3.0, "expert_prefill": 3.0, "prefill_attention": 3.0, "prefill_layer_s": 1.0}
    dearer = StepModel(d, replace(constants, engine=replace(constants.engine, **dear)))
    one = {"decodes": 3, "context_sum": 3000, "sampling": 3}
    assert dearer.terms(**one).total_s == model_of(d).terms(**one).total_s


def test_prefill_attention_doubles_with_the_pairs():
    model = steps("Qwen/Qwen3-8B", "h100_sxm")
    fixed, one, two = (
        model.terms(prefill_tokens=100, pair_sum=pairs).seconds["prefill attention"] for pairs in (0, 10**9, 2 * 10**9)
    )
    assert two - one == pytest.approx(one - fixed)
    assert one - fixed == pytest.approx(10**9 * parts_of(model).pair_s)


@pytest.mark.usefixtures("data_sheet")
def test_pairs_price_the_flops_of_causal_attention():
    """A prompt of L tokens has L (L + 1) / 2 (query, key) pairs; each costs 4 x head_dim FLOPs per head and layer."""
    model = steps(LLAMA, "h100_sxm", "vllm", "fp8", 4)
    flops = 80 * (64 / 4) * 4 * 128  # layers x heads per GPU x 4 head_dim
    expected_s = model.efficiency.engine.prefill_attention * flops / model.accelerator.flops["bf16"]
    assert 2 * parts_of(model).pair_s == pytest.approx(expected_s, rel=1e-9)  # A counts every pair twice


@pytest.mark.usefixtures("data_sheet")
def test_context_prices_the_kv_bytes_a_decode_reads_and_multiplies():
    """Llama-3.1-70B: 327,680 B a token over TP 4, and 80 layers x 16 heads x 4 x 128 FLOPs."""
    model = steps(LLAMA, "h100_sxm", "vllm", "fp8", 4)
    read_s = 327_680 / 4 / model.accelerator.hbm_bytes_per_s
    multiply_s = 80 * 16 * 4 * 128 / model.accelerator.flops["bf16"]
    expected_s = model.efficiency.engine.attention * (read_s + multiply_s)
    assert parts_of(model).context_s == pytest.approx(expected_s, rel=1e-9)


def test_measured_context_is_read_at_a_plausible_speed():
    """At the share of HBM bandwidth that decode attention reaches: at most all of it, and not below a third."""
    for kv_bytes in (1.0, 2.0):
        model = steps(LLAMA, "h100_sxm", "vllm", "fp8", 4, kv_bytes_per_element=kv_bytes)
        read_s = 327_680 / 2 * kv_bytes / 4 / model.accelerator.hbm_bytes_per_s
        assert 0.95 * read_s < parts_of(model).context_s / model.efficiency.engine.attention < 3 * read_s


@pytest.mark.parametrize("measured", [True, False])
def test_mla_reads_its_latent_whole_on_every_gpu(measured, monkeypatch):
    """DeepSeek-V3: 61 layers x 576 elements at any TP, so that more GPUs read no less."""
    if not measured:
        monkeypatch.setattr("trilemma.latency.kernels.find_surface", lambda *_: None)
    at = [steps(DEEPSEEK, "b200_sxm", "sglang", "fp8", tp) for tp in (4, 8)]
    floor_s = 61 * 576 * 2 / at[0].accelerator.hbm_bytes_per_s
    four_s, eight_s = (parts_of(m).context_s / m.efficiency.engine.attention for m in at)
    assert min(four_s, eight_s) > floor_s
    assert 0.5 * four_s < eight_s < four_s  # the heads that use it are split


@pytest.mark.usefixtures("data_sheet")
@pytest.mark.parametrize("tokens", [1, 64, 4096])
def test_gemms_price_the_weights_and_flops_that_memory_counts(tokens):
    """Llama-3.1-8B on one GPU: 2 FLOPs a token and every byte once, of all weights but embedding and head."""
    model = steps("meta-llama/Meta-Llama-3.1-8B", "h100_sxm", precision="bf16")
    h100 = model.accelerator
    cost = model.by_tokens(np.array([float(tokens)]))["GEMMs"]
    weights = sum(m.params for m in matrices(model.deployment.model) if m.is_gemm and m.role is not Role.HEAD)
    assert weights == pytest.approx(8.03e9 - 2 * 128_256 * 4096, rel=0.001)
    assert cost.compute_s[0] == pytest.approx(2 * tokens * weights / h100.flops["bf16"])
    # Activations: qkv 4096 + 6144, o 4096 + 4096, gate and up 4096 + 28672, down 14336 + 4096, of 2 bytes, 32 layers.
    moved = 2 * weights + tokens * 32 * 2 * (10_240 + 8192 + 32_768 + 18_432)
    assert cost.memory_s[0] == pytest.approx(moved / h100.hbm_bytes_per_s)
    assert cost.seconds[0] > max(cost.memory_s[0], cost.compute_s[0])
    term_s = model.terms(prefill_tokens=tokens, pair_sum=0).seconds["GEMMs"]
    assert term_s == pytest.approx(model.efficiency.engine.gemm * cost.seconds[0])


@pytest.mark.usefixtures("data_sheet")
def test_experts_price_the_touched_weights_and_the_flops_of_the_chosen_ones():
    """Mixtral 8x22B: 56 layers x 8 experts of 3 x 6144 x 16384, two a token; 64 tokens touch all eight."""
    model = steps("mistralai/Mixtral-8x22B-v0.1", "h100_sxm", precision="bf16", tp=8)
    h100 = model.accelerator
    expert = 3 * 6144 * 16384 / 8  # on one GPU
    one, many = (model.by_tokens(np.array([n]))["experts"] for n in (1.0, 64.0))
    assert one.compute_s[0] == pytest.approx(56 * 2 * 2 * expert / h100.flops["bf16"])
    assert many.compute_s[0] == pytest.approx(64 * one.compute_s[0])
    read_s = 56 * 2 * expert / h100.hbm_bytes_per_s
    assert one.memory_s[0] == pytest.approx(2 * read_s, rel=0.001)
    assert many.memory_s[0] == pytest.approx(8 * read_s, rel=0.02)
    term_s = model.terms(prefill_tokens=64, pair_sum=0).seconds["experts"]
    assert term_s == pytest.approx(model.efficiency.engine.expert * many.seconds[0])


@pytest.mark.usefixtures("data_sheet")
def test_the_head_reads_the_vocabulary_in_bf16_for_the_sequences_that_sample():
    """Llama-3.1-70B in FP8 keeps its head in BF16: 128,256 x 8,192 x 2 B over TP 4."""
    model = steps(LLAMA, "h100_sxm", "vllm", "fp8", 4)
    read_s = 128_256 * 8192 * 2 / 4 / model.accelerator.hbm_bytes_per_s
    engine = model.efficiency.engine
    one, nine = (model.terms(decodes=9, context_sum=900, sampling=n).seconds for n in (1, 9))
    assert one["output head"] == pytest.approx(engine.gemm * read_s, rel=0.02)  # and a launch
    for count, found in ((1.0, one), (9.0, nine)):
        head = gemm_cost(np.array([count]), 128_256 / 4, 8192.0, accelerator=model.accelerator, form="bf16")
        assert found["output head"] == pytest.approx(engine.gemm * head.seconds[0], rel=1e-9)
    assert nine["sampling"] - one["sampling"] == pytest.approx(8 * engine.sequence_s)


@pytest.mark.parametrize("model", ["deepseek-ai/DeepSeek-V3.2", "zai-org/GLM-5", "deepseek-ai/DeepSeek-V4-Pro"])
@pytest.mark.parametrize(("context", "share"), [(2304.0, 1.0), (32_768.0, 0.3)])
def test_sparse_attention_grows_slower_with_context_than_dense(model, context, share):
    """Beyond what is chosen, a token of context adds its index key (or a compressed entry) alone."""
    typical = {"context_tokens": context}
    sparse, dense = (
        parts_of(steps(name, "b200_sxm", precision="fp8", tp=8, typical=typical)) for name in (model, DEEPSEEK)
    )
    assert 0 < sparse.context_s < share * dense.context_s


def test_compressed_choices_are_capped_and_what_is_scored_is_not():
    sparse = parts_of(steps("deepseek-ai/DeepSeek-V4-Pro", "b200_sxm", precision="fp8", tp=8))
    assert sparse.window_s > 0
    assert sparse.context_s > 0
    assert sparse.pair_s > 0


@pytest.mark.parametrize("measured", [True, False])
def test_a_window_costs_per_token_inside_it_and_a_state_per_sequence(measured, monkeypatch):
    if not measured:
        monkeypatch.setattr("trilemma.latency.kernels.find_surface", lambda *_: None)
    window, whole = (steps(f"mistralai/Mistral-7B-v0.{version}", "h100_sxm") for version in (1, 3))
    assert (window.columns.window_tokens, parts_of(window).context_s) == (4096, 0)
    assert (whole.columns.window_tokens, parts_of(whole).window_s) == (0, 0)
    rel = 0.1 if measured else 1e-9
    assert parts_of(window).window_s == pytest.approx(parts_of(whole).context_s, rel=rel)
    state = steps("nvidia/Nemotron-H-56B-Base-8K", "h100_sxm")
    assert (np.diff(parts_of(state).decode_s) > 0).all()
    assert parts_of(state).window_s == 0


@pytest.mark.usefixtures("data_sheet")
def test_half_the_layers_of_gpt_oss_read_at_most_128_tokens():
    model = steps("openai/gpt-oss-120b", "h100_sxm", precision="mxfp4")
    assert model.columns.window_tokens == 128
    assert parts_of(model).window_s == pytest.approx(parts_of(model).context_s)  # 18 layers of each, otherwise alike
    at = [model.terms(decodes=1, context_sum=c, sampling=1).seconds["decode attention"] for c in (28, 128, 228)]
    assert at[1] - at[0] == pytest.approx(2 * (at[2] - at[1]))


def test_of_several_caps_the_one_that_costs_most_is_followed_and_the_others_are_charged_whole():
    """DeepSeek-V4-Flash: windows of 128 tokens; 21 layers choose 512 entries of 4 tokens, which costs more."""
    model = steps("deepseek-ai/DeepSeek-V4-Flash", "b200_sxm", precision="fp8")
    parts = parts_of(model)
    assert model.columns.window_tokens == 4 * 512
    architecture = model.deployment.model
    blocks = tuple(
        replace(b, attention=replace(b.attention, window_tokens=None)) if b.attention.kv_compress_ratio > 1 else b
        for b in architecture.blocks
    )
    unwindowed = parts_of(model_of(replace(model.deployment, model=replace(architecture, blocks=blocks))))
    entry_s = parts.window_s / 21 * 4  # of one layer
    each_s = 41 * 128 * entry_s  # of a sequence, in the layers that lost their windows
    assert parts.decode_s - unwindowed.decode_s == pytest.approx(each_s * model.columns.sequences)
    assert unwindowed.window_s == pytest.approx(parts.window_s)
    empty = model.terms(decodes=1, context_sum=0, sampling=1).seconds["decode attention"]
    assert empty == pytest.approx(parts.decode_s[0])


@pytest.mark.usefixtures("data_sheet")
def test_layers_with_the_same_cap_are_counted_together():
    """Llama-4-Maverick: 24 dense and 12 MoE layers of chunked attention, of 8192 tokens both, beside 12 full ones."""
    model = steps("meta-llama/Llama-4-Maverick-17B-128E-Instruct", "h200_sxm", precision="fp8", tp=8)
    assert model.columns.window_tokens == 8192
    assert parts_of(model).window_s == pytest.approx(3 * parts_of(model).context_s)
    assert model.columns.decoding.capped_s.keys() == {8192}


@pytest.mark.parametrize("measured", [True, False])
def test_attention_dp_shares_experts_and_not_attention(measured, monkeypatch):
    """Eight ranks of one token each touch the experts of eight tokens; the GEMMs of attention see one."""
    if not measured:
        monkeypatch.setattr("trilemma.latency.kernels.find_surface", lambda *_: None)
    ranks = steps(DEEPSEEK, "h200_sxm", "sglang", "fp8", 1, 8, 8)
    tensor = steps(DEEPSEEK, "h200_sxm", "sglang", "fp8", 8, 1, 8)
    eight = np.array([8.0])
    alone, split = ranks.by_tokens(eight / 8), tensor.by_tokens(eight)
    assert alone["experts"].seconds == pytest.approx(split["experts"].seconds)
    assert alone["GEMMs"].seconds > split["GEMMs"].seconds
    prompt = {"prefill_tokens": 2048, "pair_sum": 2048 * 2049}
    heads = [m.terms(**prompt).seconds["prefill attention"] for m in (ranks, tensor)]
    assert 5 < heads[0] / heads[1] < 9
    if not measured:
        assert parts_of(ranks).pair_s == pytest.approx(8 * parts_of(tensor).pair_s)


# The engine --------------------------------------------------------------------------------------------------------


def test_host_time_is_the_engine_s_own():
    d = deployment("Qwen/Qwen3-8B", "h100_sxm")
    constants = efficiency_of(d)
    slower = replace(constants, engine=replace(constants.engine, step_s=constants.engine.step_s + 0.5))
    one = {"decodes": 1, "context_sum": 10, "sampling": 1}
    assert StepModel(d, slower).terms(**one).total_s == pytest.approx(model_of(d).terms(**one).total_s + 0.5)


@pytest.mark.parametrize("stretch", [0.5, 1.0, 1.7])
def test_a_stretch_is_of_every_step_and_every_term(stretch):
    """What measured runs of like deployments say of TPOT, a step takes so many times as long."""
    plain = steps(*KINDS["moe_4bit"])
    longer = StepModel(plain.deployment, plain.efficiency, stretch=stretch)
    step = {"prefill_tokens": 300, "pair_sum": 300 * 301, "decodes": 8, "context_sum": 8000, "sampling": 9}
    before, after = plain.terms(**step), longer.terms(**step)
    assert before.binds == after.binds
    for name, seconds in after.seconds.items():
        assert seconds == pytest.approx(stretch * before.seconds[name]), name
    one_ps, other_ps = (m.table().step_ps(**step, window_sum=1024) for m in (plain, longer))
    assert other_ps == pytest.approx(stretch * one_ps, rel=1e-4)


def test_drafts_are_layers_of_their_own_and_tokens_that_the_model_verifies():
    """Four decodes with two drafts each compute twelve tokens; the prediction layers are two of 61 at most."""
    where = (DEEPSEEK, "b200_sxm", "sglang", "fp8", 8)
    one = {"decodes": 4, "context_sum": 4000, "sampling": 4}
    plain, drafting = steps(*where), steps(*where, mtp=True)
    before, after = plain.terms(**one).seconds, drafting.terms(**one).seconds
    twelve = plain.terms(decodes=12, context_sum=0, sampling=12).seconds
    extra = sum(twelve[name] - before[name] for name in ("GEMMs", "experts", "collectives", "elementwise"))
    assert after["verification"] == pytest.approx(extra)
    pass_s = sum(before[name] for name in ("GEMMs", "experts", "output head"))
    assert 0 < after["draft layers"] < MTP_DRAFTS * pass_s / 5
    for name, seconds in before.items():
        assert after[name] == seconds, name
    assert after.keys() - before.keys() == {"verification", "draft layers"}


@pytest.mark.parametrize(
    ("where", "source", "says"),
    [
        ((LLAMA, "h100_sxm", "vllm", "fp8", 4), Source.FITTED, ()),
        (("Qwen/Qwen3-8B", "l4", "vllm"), Source.DERIVED, ("kernels of l40s",)),
        ((LLAMA, "mi300x", "vllm", "bf16"), Source.DERIVED, ("kernels of h100_sxm",)),
        ((LLAMA, "h100_sxm", "vllm", "bf16", 16), Source.GUESS, ()),  # two link domains
    ],
)
def test_a_step_is_as_well_known_as_its_weakest_part(where, source, says):
    model = steps(*where)
    assert model.source is source
    assert all(any(text in note for note in model.kernels.notes) for text in says)
    assert bool(model.kernels.notes) == bool(says)
    d = model.deployment
    unknown = replace(d, engine=replace(d.engine, name="lmdeploy"))  # no measured runs: overheads are another's
    assert model_of(unknown).source is Source.GUESS


def test_slower_kernels_are_slower_in_every_term_that_kernels_take():
    d = deployment(*KINDS["moe"])
    constants = efficiency_of(d)
    plain, slower = (StepModel(d, replace(constants, slower=by)) for by in (1.0, 1.5))
    step = {"prefill_tokens": 300, "pair_sum": 300 * 301, "decodes": 8, "context_sum": 8000, "sampling": 9}
    before, after = (m.terms(**step).seconds for m in (plain, slower))
    for name in ("GEMMs", "experts", "collectives", "decode attention", "prefill attention", "output head"):
        assert after[name] == pytest.approx(1.5 * before[name]), name
    for name in ("host", "sampling", "elementwise"):
        assert after[name] == before[name], name


# Pipeline parallelism ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize("stages", [2, 4])
@pytest.mark.parametrize("where", [(LLAMA, "h100_sxm", "vllm", "fp8", 2), ("Qwen/Qwen3-235B-A22B", "h200_sxm")])
def test_a_round_of_micro_batches_is_one_after_another_through_every_layer(where, stages, measured, monkeypatch):
    """Each stage holds its share of the layers and runs as many micro-batches as there are stages: a round of so many
    times the work takes one pass of a micro-batch through all layers, and what stages send each other."""
    if not measured:
        monkeypatch.setattr("trilemma.latency.kernels.find_surface", lambda *_: None)
    typical = {"prompt_tokens": 512.0, "context_tokens": 1500.0}
    whole = steps(*where, budget=1024, seqs=16, typical=typical)
    staged = steps(*where, budget=1024 * stages, seqs=16 * stages, pp=stages, typical=typical)
    micro = {"prefill_tokens": 512, "pair_sum": 512 * 513, "decodes": 8, "context_sum": 8 * 1500, "sampling": 8}
    alone, together = whole.terms(**micro), staged.terms(**{name: stages * n for name, n in micro.items()})
    for name in ("GEMMs", "experts", "elementwise", "host"):
        if name in alone.seconds:
            assert together.seconds[name] == pytest.approx(alone.seconds[name]), name
    for name in ("decode attention", "prefill attention"):
        assert together.seconds[name] == pytest.approx(alone.seconds[name], rel=0.02), name
    assert together.seconds["output head"] == pytest.approx(stages * alone.seconds["output head"])
    sent_s = together.seconds["collectives"] - alone.seconds.get("collectives", 0.0)
    assert 0 < sent_s < 0.2 * alone.total_s


@pytest.mark.parametrize("where", [(LLAMA, "h100_sxm", "vllm", "fp8", 2), KINDS["moe"][:4]])
def test_stages_read_the_weights_for_every_micro_batch_and_split_the_work(where):
    """One decode gains nothing from stages; a large prefill takes less, but not less than its share of the time."""
    whole, staged = steps(*where, budget=8192), steps(*where, budget=8192, pp=4)
    one = {"decodes": 1, "context_sum": 1000, "sampling": 1}
    assert staged.terms(**one).seconds["GEMMs"] > 0.9 * whole.terms(**one).seconds["GEMMs"]
    assert staged.terms(**one).total_s > 0.9 * whole.terms(**one).total_s
    prefill = {"prefill_tokens": 8192, "pair_sum": 4 * 2048 * 2049}
    whole_s, staged_s = whole.terms(**prefill).total_s, staged.terms(**prefill).total_s
    assert 0.25 * whole_s < staged_s < 0.6 * whole_s


def test_tables_of_stages_are_sums_of_their_terms():
    staged = steps(LLAMA, "h100_sxm", "vllm", "fp8", 2, pp=2)
    for shape in (
        {"prefill_tokens": 0, "pair_sum": 0, "decodes": 7, "context_sum": 9000, "sampling": 7},
        {"prefill_tokens": 900, "pair_sum": 900 * 901, "decodes": 3, "context_sum": 900, "sampling": 4},
    ):
        assert staged.table().step_ps(**shape) * 1e-12 == pytest.approx(staged.terms(**shape).total_s, rel=0.02)


# Formats -----------------------------------------------------------------------------------------------------------


def test_a_precision_the_accelerator_cannot_run_is_refused_with_the_reason():
    with pytest.raises(UnsupportedError, match="nvfp4 does not run on mi355x"):
        steps("Qwen/Qwen3-8B", "mi355x", precision="nvfp4")


@pytest.mark.parametrize(
    ("precision", "accelerator", "multiplies_in", "dense", "mixture"),
    [
        ("bf16", "h100_sxm", "bf16", "bf16", "bf16"),
        ("fp8", "h100_sxm", "fp8", "fp8", "fp8_block"),
        ("fp8", "a100_sxm", "bf16", "w8a16", "w8a16"),
        ("int4", "h100_sxm", "bf16", "w4a16", "w4a16"),
        ("nvfp4", "b200_sxm", "fp4", "nvfp4", "nvfp4"),
        ("mxfp4", "h100_sxm", "bf16", "bf16", "mxfp4_w4a16"),  # of the experts alone
    ],
)
def test_formats(precision, accelerator, multiplies_in, dense, mixture):
    rows = CATALOGUE.precision(precision), CATALOGUE.accelerator(accelerator)
    assert compute_format(*rows) == multiplies_in
    for name, role, expected in ((LLAMA, Role.MLP, dense), ("Qwen/Qwen3-235B-A22B", Role.EXPERT, mixture)):
        assert kernel_form(rows[0], role, CATALOGUE.model(name), rows[1]) == expected
        assert kernel_form(rows[0], Role.HEAD, CATALOGUE.model(name), rows[1]) == "bf16"


# The catalogue -----------------------------------------------------------------------------------------------------


def test_every_kind_has_a_table_to_its_schedulers_bounds():
    for kind in KINDS:
        assert table_of(kind).token_ps.size == 2049
        assert table_of(kind).sequence_ps.size == 65


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
            table, parts = model.table(), parts_of(model)
            assert table.context_ps == pytest.approx(1e12 * parts.context_s, rel=0.005), name
            assert table.window_ps == pytest.approx(1e12 * parts.window_s, rel=0.005), name
            inside = min(1000, table.window_tokens)
            decode = {"decodes": 1, "sampling": 1, "context_sum": 1000, "window_sum": inside}
            one = table.step_ps(prefill_tokens=0, pair_sum=0, **decode) * 1e-12
            full = table.step_ps(prefill_tokens=2048, decodes=0, sampling=1, context_sum=0, pair_sum=2048 * 2049)
            assert 5e-4 < one < 0.2, name
            assert one < full * 1e-12 < 30, name


def test_without_cuda_graphs_no_step_is_shorter_than_its_launches():
    model = steps("Qwen/Qwen3-0.6B", "h100_sxm", precision="bf16", budget=8192)
    knobs = replace(model.deployment.knobs, cuda_graphs=False)
    eager = StepModel(replace(model.deployment, knobs=knobs), model.efficiency, model.typical, like=model)
    assert model.floor_s == 0
    assert eager.floor_s == pytest.approx(28 * EAGER_LAYER_S.value)
    small, large = {"decodes": 1, "context_sum": 100, "sampling": 1}, {"prefill_tokens": 8192, "pair_sum": 8192 * 8193}
    assert eager.terms(**small).total_s == pytest.approx(eager.floor_s)
    assert eager.terms(**small).bottleneck == "overhead"
    assert eager.terms(**large).seconds == model.terms(**large).seconds
    shape = small | {"prefill_tokens": 0, "pair_sum": 0, "window_sum": 0}
    assert eager.table().step_ps(**shape) == round(eager.floor_s * 1e12)
    assert eager.table().step_ps(**shape) > model.table().step_ps(**shape)
