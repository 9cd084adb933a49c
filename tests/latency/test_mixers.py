"""Attention of whole models in affine form: every kind has a price, and what its slopes and fixed times must keep."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.latency.deployments import CATALOGUE, KINDS, deployment
from trilemma.catalogue.model import AttentionKind
from trilemma.deployment.kv import kv_bytes_per_token_per_gpu
from trilemma.latency.attention import LAUNCH_S, decode_affine, decode_attention, prefill_affine, prefill_attention
from trilemma.latency.columns import grid_to
from trilemma.latency.kernels import Kernels
from trilemma.latency.mixers import Decoding, Mixers, Prefilling, Typical

# The fixture below changes nothing between examples.
law = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
every_kind = pytest.mark.parametrize("kind", sorted(KINDS))
kinds = st.sampled_from(sorted(KINDS))
LLAMA, DEEPSEEK, SPARSE = "meta-llama/Meta-Llama-3.1-70B", "deepseek-ai/DeepSeek-V3", "deepseek-ai/DeepSeek-V3.2"
COMPRESSED, MISTRAL = "deepseek-ai/DeepSeek-V4-Flash", "mistralai/Mistral-7B-v0.1"
SEQUENCES, TOKENS = grid_to(64), grid_to(4096)
TYPICALS = st.builds(
    Typical,
    prompt_tokens=st.floats(1, 50_000),
    prefix_tokens=st.sampled_from([0.0, 100.0, 20_000.0]),
    context_tokens=st.floats(1, 100_000),
)


@pytest.fixture
def data_sheet(monkeypatch):
    """No kernel is measured: base times alone."""
    monkeypatch.setattr("trilemma.latency.kernels.find_surface", lambda *_: None)


def mixers_of(d, **typical) -> Mixers:
    return Mixers(d, Kernels(d.accelerator, d.engine.name), Typical(**typical))


def decoding(*where, typical=None, **options) -> Decoding:
    return mixers_of(deployment(*where, **options), **(typical or {})).decoding(SEQUENCES)


def prefilling(*where, typical=None, **options) -> Prefilling:
    return mixers_of(deployment(*where, **options), **(typical or {})).prefilling(TOKENS)


def decode_s(found, context):
    """Seconds (n,) of decodes that have `context` tokens each."""
    inside = sum(slope * min(context, cap) for cap, slope in found.capped_s.items())
    return found.fixed_s + SEQUENCES * (found.context_s * context + inside)


def prefill_s(found, prompt=2048.0, prefix=0.0):
    """Seconds (p,) of steps with prompts of at most `prompt` tokens after `prefix`."""
    return found.fixed_s + found.pair_s * TOKENS * (2 * prefix + np.minimum(TOKENS, prompt) + 1)


def only(d, kinds):
    """The same deployment with the layers whose mixer is one of `kinds` alone."""
    kept = tuple(b for b in d.model.blocks if b.attention is not None and b.attention.kind in kinds)
    return replace(d, model=replace(d.model, blocks=kept))


# Every architecture ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measured", [True, False])
@every_kind
def test_every_kind_of_layer_has_a_price(kind, measured, monkeypatch):
    if not measured:
        monkeypatch.setattr("trilemma.latency.kernels.find_surface", lambda *_: None)
    mixers = mixers_of(deployment(*KINDS[kind]))
    decode, prefill = mixers.decoding(SEQUENCES), mixers.prefilling(TOKENS)
    slopes = [decode.context_s, prefill.pair_s, *decode.capped_s.values()]
    assert np.isfinite(slopes).all()
    assert min(slopes) >= 0
    for found, at in ((decode_s(decode, 2304), SEQUENCES), (prefill_s(prefill), TOKENS)):
        assert found.shape == at.shape
        assert np.isfinite(found).all()
        assert (found > 0).all()
        assert found[-1] > found[0]
    assert (decode.fixed_s >= 0).all()
    assert (prefill.fixed_s >= 0).all()


@pytest.mark.usefixtures("data_sheet")
@law
@given(kinds, TYPICALS)
def test_attention_rises_with_sequences_tokens_and_context(kind, typical):
    d = deployment(*KINDS[kind])
    mixers = Mixers(d, Kernels(d.accelerator, d.engine.name), typical)
    decode, prefill = mixers.decoding(SEQUENCES), mixers.prefilling(TOKENS)
    by_context = np.array([decode_s(decode, context) for context in (0, 1, 100, 128, 5000, 200_000)])
    assert (np.diff(by_context, axis=0) >= 0).all()
    # Capped kernels that keep their time leave a little less for larger batches: rounding, not a law's breach.
    assert (np.diff(by_context, axis=1) >= -1e-12).all()
    assert (np.diff(prefill_s(prefill, typical.prompt_tokens, typical.prefix_tokens)) >= -1e-12).all()


@every_kind
def test_a_context_that_all_layers_keep_costs_where_one_of_them_does(kind):
    decode = decoding(*KINDS[kind])
    assert (decode.context_s > 0) == (kind != "window_alone")


@pytest.mark.usefixtures("data_sheet")
@law
@given(kinds, st.sampled_from(["hbm_bytes_per_s", "flops"]), st.floats(1, 10))
def test_better_hardware_is_never_slower(kind, what, factor):
    d = deployment(*KINDS[kind])
    value = getattr(d.accelerator, what)
    better = {name: peak * factor for name, peak in value.items()} if what == "flops" else value * factor
    faster = mixers_of(replace(d, accelerator=replace(d.accelerator, **{what: better})))
    base = mixers_of(d)
    for context in (128, 2304):
        before, after = (decode_s(m.decoding(SEQUENCES), context) for m in (base, faster))
        assert (after <= before * (1 + 1e-9)).all()
    before, after = (prefill_s(m.prefilling(TOKENS)) for m in (base, faster))
    assert (after <= before * (1 + 1e-9)).all()


@pytest.mark.usefixtures("data_sheet")
@pytest.mark.parametrize("model", [LLAMA, DEEPSEEK, SPARSE, MISTRAL, "Qwen/Qwen3.5-397B-A17B"])
def test_tensor_parallelism_splits_heads(model):
    """Never more than in half when it doubles; latents are whole on every GPU, so that their decodes gain less."""
    ways = [(decoding(model, "h200_sxm", tp=tp), prefilling(model, "h200_sxm", tp=tp)) for tp in (1, 2, 4, 8)]
    for (fewer, fewer_p), (more, more_p) in zip(ways, ways[1:], strict=False):
        assert (decode_s(more, 2304) < decode_s(fewer, 2304)).all()
        assert (decode_s(more, 2304) >= decode_s(fewer, 2304) / 2).all()
        assert (prefill_s(more_p) < prefill_s(fewer_p)).all()
        assert (prefill_s(more_p) >= prefill_s(fewer_p) / 2 * (1 - 1e-9)).all()


@pytest.mark.usefixtures("data_sheet")
def test_attention_data_parallelism_leaves_all_heads_to_every_rank():
    ranks, alone = (prefilling(DEEPSEEK, "h200_sxm", "sglang", "fp8", 1, dp) for dp in (8, 1))
    split = prefilling(DEEPSEEK, "h200_sxm", "sglang", "fp8", 8, 1)
    assert ranks.pair_s == alone.pair_s == pytest.approx(8 * split.pair_s)


@pytest.mark.usefixtures("data_sheet")
def test_more_ways_than_kv_heads_copy_them():
    eight, sixteen = (decoding(LLAMA, "h100_sxm", tp=tp) for tp in (8, 16))
    assert sixteen.context_s > 0.9 * eight.context_s
    assert sixteen.context_s <= eight.context_s


# What the affine forms promise -------------------------------------------------------------------------------------


@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize("context", [10.0, 700.0, 2304.0, 30_000.0])
def test_decodes_are_exact_at_the_typical_context(context, measured, monkeypatch):
    if not measured:
        monkeypatch.setattr("trilemma.latency.kernels.find_surface", lambda *_: None)
    d = deployment(LLAMA, "h100_sxm", "sglang", "fp8", 4, kv_bytes_per_element=1.0)
    mixers = mixers_of(d, context_tokens=context)
    call = decode_attention(
        SEQUENCES, context, heads=16, kv_heads=2, head_dim=128, kv_bytes_per_element=1, accelerator=d.accelerator
    )
    ratio = mixers.kernels.stretch("decode_attention", "fp8", call.features)
    assert decode_s(mixers.decoding(SEQUENCES), context) == pytest.approx(80 * call.base.seconds * ratio)


@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize("prompt", [100.0, 1024.0, 8192.0])
def test_prefills_are_exact_at_the_typical_prompt(prompt, measured, monkeypatch):
    if not measured:
        monkeypatch.setattr("trilemma.latency.kernels.find_surface", lambda *_: None)
    d = deployment(LLAMA, "h100_sxm", "vllm", "fp8", 4)
    mixers = mixers_of(d, prompt_tokens=prompt)
    new = np.minimum(TOKENS, prompt)
    call = prefill_attention(
        new, 0, prompts=TOKENS / new, heads=16, kv_heads=2, head_dim=128, kv_bytes_per_element=2,
        accelerator=d.accelerator,
    )  # fmt: skip
    ratio = mixers.kernels.stretch("prefill_attention", "bf16", call.features)
    found = prefill_s(mixers.prefilling(TOKENS), prompt)
    assert found == pytest.approx(80 * call.base.seconds * ratio)


@law
@given(
    st.lists(st.floats(0, 1e-5), min_size=4, max_size=4),
    st.floats(0.5, 1.5),
    st.floats(1, 1e5),
    st.sampled_from([None, 128, 4096]),
)
def test_any_decode_kernel_is_met_at_the_typical_context_with_nothing_negative(terms, power, context, cap):
    def seconds(n, c):
        read = np.minimum(c, cap or np.inf)
        return terms[0] + 1e-9 + terms[1] * n + 1e-3 * terms[2] * (n * read) ** power + 1e-3 * terms[3] * read

    fixed_s, slope = decode_affine(seconds, SEQUENCES, context, cap_tokens=cap)
    assert slope >= 0
    assert (fixed_s >= 0).all()
    met = fixed_s + slope * SEQUENCES * min(context, cap or np.inf)
    assert met == pytest.approx(seconds(SEQUENCES, np.full_like(SEQUENCES, context)), rel=1e-6)


@law
@given(
    st.lists(st.floats(0, 1e-6), min_size=3, max_size=3),
    st.floats(0.7, 1.5),
    st.floats(1, 1e5),
    st.sampled_from([0.0, 50.0, 1e4]),
)
def test_any_prefill_kernel_is_met_at_the_typical_prompt_with_nothing_negative(terms, power, prompt, prefix):
    def seconds(q, s, n):
        return 1e-9 + terms[0] + terms[1] * n * q + 1e-6 * terms[2] * (n * q * (2 * s + q + 1)) ** power

    fixed_s, slope = prefill_affine(seconds, TOKENS, prompt, prefix)
    assert slope >= 0
    assert (fixed_s >= 0).all()
    new = np.minimum(TOKENS, prompt)
    met = fixed_s + slope * TOKENS * (2 * prefix + new + 1)
    assert met == pytest.approx(seconds(new, np.full_like(new, prefix), TOKENS / new), rel=1e-6)


def test_layers_add_up_and_caps_are_kept_apart():
    def one(fixed, context, **caps):
        capped = {int(name[1:]): s for name, s in caps.items()}
        return Decoding(fixed_s=np.full(3, fixed), context_s=context, capped_s=capped)

    total = one(1.0, 2.0, t128=3.0) + one(10.0, 20.0, t128=30.0, t4096=5.0).times(2)
    assert total.fixed_s.tolist() == [21] * 3
    assert (total.context_s, total.capped_s) == (42, {128: 63, 4096: 10})
    both = Prefilling(fixed_s=np.ones(2), pair_s=3.0) + Prefilling(fixed_s=np.ones(2), pair_s=1.0).times(4)
    assert (both.fixed_s.tolist(), both.pair_s) == ([5, 5], 7)


# The KV cache ------------------------------------------------------------------------------------------------------


def cache_s(d) -> float:
    """One token's KV over the data sheet's bandwidth."""
    held = kv_bytes_per_token_per_gpu(d.model, d.kv_bytes_per_element, d.parallelism)
    return held / d.accelerator.hbm_bytes_per_s


@pytest.mark.usefixtures("data_sheet")
@pytest.mark.parametrize("kv_bytes", [1.0, 2.0])
@pytest.mark.parametrize("tp", [1, 4])
@pytest.mark.parametrize("model", [LLAMA, DEEPSEEK])
def test_a_token_of_context_takes_at_least_reading_it(model, tp, kv_bytes):
    d = deployment(model, "h100_sxm", tp=tp, kv_bytes_per_element=kv_bytes)
    slope = mixers_of(d).decoding(SEQUENCES).context_s
    most = 1.1 if model == LLAMA else 8  # 128 heads multiply what they read of one latent
    assert cache_s(d) <= slope <= most * cache_s(d)


@pytest.mark.parametrize("engine", ["vllm", "trtllm", "sglang"])
@pytest.mark.parametrize("accelerator", ["a100_sxm", "h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm", "gb200"])
@pytest.mark.parametrize("context", [2304.0, 32_768.0])
def test_measured_decodes_read_llamas_cache_no_faster_than_memory(accelerator, engine, context):
    """80 layers of 2 x 8 heads of 128, over 4 GPUs: 82 kB a token. Within the surfaces' own error."""
    d = deployment(LLAMA, accelerator, engine, "bf16", 4)
    slope = mixers_of(d, context_tokens=context).decoding(SEQUENCES).context_s
    assert 0.95 * cache_s(d) < slope < 3 * cache_s(d)


@pytest.mark.usefixtures("data_sheet")
@pytest.mark.parametrize("kind", ["dense", "moe", "window", "linear"])
def test_an_fp8_cache_is_read_in_about_half_the_time(kind):
    bf16, fp8 = (decoding(*KINDS[kind], kv_bytes_per_element=kv) for kv in (2.0, 1.0))
    assert 0.5 * bf16.context_s * (1 - 1e-9) <= fp8.context_s < 0.62 * bf16.context_s
    for cap, slope in fp8.capped_s.items():
        assert 0.5 * bf16.capped_s[cap] * (1 - 1e-9) <= slope < 0.7 * bf16.capped_s[cap]


def test_an_fp8_cache_is_read_by_kernels_measured_on_one(monkeypatch):
    """Latent attention multiplies in FP8 then, TensorRT-LLM's of quantised weights too."""
    asked = set()
    monkeypatch.setattr(
        "trilemma.latency.kernels.find_surface",
        lambda operation, _accelerator, _engine, form: asked.add((operation, form)),
    )

    def forms(*where, **options):
        asked.clear()
        mixers = mixers_of(deployment(*where, tp=4, **options))
        mixers.decoding(SEQUENCES)
        mixers.prefilling(TOKENS)
        return dict(asked)

    fp8 = {"kv_bytes_per_element": 1.0}
    assert forms(LLAMA, "h100_sxm") == {"decode_attention": "bf16", "prefill_attention": "bf16"}
    assert forms(LLAMA, "h100_sxm", **fp8) == {"decode_attention": "fp8", "prefill_attention": "fp8kv"}
    both = {"decode_attention": "fp8", "prefill_attention": "fp8"}
    assert forms(LLAMA, "h100_sxm", "trtllm", "fp8", **fp8) == both
    assert forms(DEEPSEEK, "h100_sxm", **fp8) == {"decode_mla": "fp8", "prefill_mla": "fp8"}
    assert forms(SPARSE, "h100_sxm", **fp8) == {"decode_dsa": "fp8", "prefill_dsa": "fp8"}


@pytest.mark.usefixtures("data_sheet")
def test_a_pair_of_tokens_takes_what_multiplying_it_does():
    """Llama-3.1-70B over 4 GPUs: 80 layers x 16 heads x 128 x (two products of 2), and a unit is half a pair."""
    d = deployment(LLAMA, "h100_sxm", tp=4)
    pair_s = mixers_of(d).prefilling(TOKENS).pair_s
    assert pair_s == pytest.approx(80 * 16 * 128 * 4 / 2 / d.accelerator.flops["bf16"], rel=0.02)


# Windows, choices and states ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("data_sheet")
@pytest.mark.parametrize(
    ("kind", "caps"),
    [
        ("dense", set()),
        ("mla", set()),
        ("mamba", set()),
        ("linear", set()),
        ("window", {1024}),
        ("window_alone", {4096}),
        ("moe_4bit", {128}),
        ("compressed", {128, 4 * 512}),
    ],
)
def test_windows_and_compressed_choices_cap_what_a_decode_reads(kind, caps):
    decode = decoding(*KINDS[kind])
    assert decode.capped_s.keys() == caps
    assert all(slope > 0 for slope in decode.capped_s.values())


@pytest.mark.usefixtures("data_sheet")
def test_a_window_is_read_like_a_whole_context_and_beyond_it_nothing_is():
    window, whole = (decoding(f"mistralai/Mistral-7B-v0.{version}", "h100_sxm") for version in (1, 3))
    assert (window.context_s, whole.capped_s) == (0, {})
    assert window.capped_s[4096] == pytest.approx(whole.context_s, rel=0.01)
    assert decode_s(window, 4096).tolist() == decode_s(window, 50_000).tolist()
    half = decoding("openai/gpt-oss-120b", "h100_sxm")  # 18 layers of 128 tokens, 18 of all
    assert half.capped_s[128] == pytest.approx(half.context_s, rel=0.01)


@pytest.mark.usefixtures("data_sheet")
def test_prefill_under_a_window_grows_with_tokens_and_not_with_pairs():
    window, whole = (prefilling(f"mistralai/Mistral-7B-v0.{version}", "h100_sxm") for version in (1, 3))
    assert (window.pair_s, whole.pair_s > 0) == (0, True)
    assert prefill_s(window) == pytest.approx(prefill_s(whole), rel=0.02)  # 2048 tokens fit the window of 4096
    long = {"typical": {"prompt_tokens": 32_768.0}}
    cut, full = (prefilling(f"mistralai/Mistral-7B-v0.{version}", "h100_sxm", **long) for version in (1, 3))
    assert (prefill_s(cut, 32_768.0)[-1]) <= prefill_s(full, 32_768.0)[-1]


@pytest.mark.usefixtures("data_sheet")
@pytest.mark.parametrize("model", [SPARSE, "zai-org/GLM-5", "zai-org/GLM-5.2"])
def test_sparse_attention_grows_slower_than_dense_with_long_contexts(model):
    """Beyond the choice of 2048 tokens only index keys are read, fewer where layers share a choice."""
    sparse = decoding(model, "b200_sxm", precision="fp8", tp=8, typical={"context_tokens": 32_768.0})
    d = deployment(model, "b200_sxm", precision="fp8", tp=8)
    blocks = tuple(replace(b, attention=replace(b.attention, index_topk=0)) for b in d.model.blocks)
    dense = mixers_of(replace(d, model=replace(d.model, blocks=blocks)), context_tokens=32_768.0)
    assert 0 < sparse.context_s < 0.5 * dense.decoding(SEQUENCES).context_s


@pytest.mark.usefixtures("data_sheet")
@pytest.mark.parametrize("model", [COMPRESSED, "deepseek-ai/DeepSeek-V4-Pro", "MiniMaxAI/MiniMax-M3"])
def test_compressed_and_chosen_caches_are_priced_by_what_is_read(model):
    """A token of context adds its share of entries and index keys, within what a whole entry would."""
    d = deployment(model, "b200_sxm", precision="bf16", tp=8)
    mixers = mixers_of(d)
    found = mixers.decoding(SEQUENCES)
    layers = sum(b.count for b in d.model.blocks if b.attention is not None)
    entry_s = 2 * 2 * 512 * layers / d.accelerator.hbm_bytes_per_s
    assert 0 < found.context_s < 0.2 * entry_s / 0.8
    assert found.capped_s
    prefill = mixers.prefilling(TOKENS)
    assert prefill.pair_s > 0
    assert (np.diff(prefill_s(prefill)) > 0).all()


@pytest.mark.usefixtures("data_sheet")
@pytest.mark.parametrize(("kind", "states"), [("linear", {AttentionKind.LINEAR}), ("mamba", {AttentionKind.SSM})])
def test_states_cost_per_sequence_and_token_whatever_the_context(kind, states):
    d = only(deployment(*KINDS[kind]), states)
    mixers = mixers_of(d)
    decode, prefill = mixers.decoding(SEQUENCES), mixers.prefilling(TOKENS)
    assert (decode.context_s, decode.capped_s, prefill.pair_s) == (0, {}, 0)
    assert (np.diff(decode.fixed_s) > 0).all()
    assert (np.diff(prefill.fixed_s) >= 0).all()
    per_sequence_s = (decode.fixed_s[-1] - decode.fixed_s[0]) / (SEQUENCES[-1] - SEQUENCES[0])
    layers = sum(b.count for b in d.model.blocks)
    a = d.model.blocks[0].attention
    state = a.heads * a.head_dim * (a.v_head_dim or a.state_dim) * a.state_bytes_per_element / d.parallelism.tensor
    read_and_written_s = layers * 2 * state / d.accelerator.hbm_bytes_per_s
    assert read_and_written_s <= per_sequence_s < 1.5 * read_and_written_s
    # A token's prefill at least adds to every element of the state and reads it: two products of two operations.
    per_token_s = (prefill.fixed_s[-1] - prefill.fixed_s[0]) / TOKENS[-1]
    assert per_token_s > 0.9 * layers * 4 * state / a.state_bytes_per_element / d.accelerator.flops["bf16"]


@pytest.mark.usefixtures("data_sheet")
def test_hybrids_pay_context_for_their_attention_layers_alone():
    d = deployment(*KINDS["linear"])
    soft = mixers_of(only(d, {AttentionKind.GQA})).decoding(SEQUENCES)
    linear = mixers_of(only(d, {AttentionKind.LINEAR})).decoding(SEQUENCES)
    both = mixers_of(d).decoding(SEQUENCES)
    assert both.context_s == pytest.approx(soft.context_s)
    assert both.fixed_s == pytest.approx(soft.fixed_s + linear.fixed_s)


@pytest.mark.usefixtures("data_sheet")
def test_every_layer_launches_a_kernel():
    for kind in KINDS:
        d = deployment(*KINDS[kind])
        layers = sum(b.count for b in d.model.blocks if b.attention is not None)
        mixers = mixers_of(d)
        assert mixers.decoding(SEQUENCES).fixed_s[0] >= layers * LAUNCH_S * (1 - 1e-9), kind
        assert mixers.prefilling(TOKENS).fixed_s[0] >= layers * LAUNCH_S * (1 - 1e-9), kind


@pytest.mark.parametrize("name", sorted(CATALOGUE.models))
def test_every_shipped_model_has_a_price(name):
    for accelerator in ("h100_sxm", "b200_sxm", "mi300x"):
        for kv_bytes in (1.0, 2.0):
            mixers = mixers_of(deployment(name, accelerator, tp=8, kv_bytes_per_element=kv_bytes))
            decode, prefill = mixers.decoding(SEQUENCES), mixers.prefilling(TOKENS)
            for found in (decode_s(decode, 2304), prefill_s(prefill)):
                assert np.isfinite(found).all()
                assert (found > 0).all()
                assert found.max() < 10


# Pipeline ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("data_sheet")
@pytest.mark.parametrize("kind", ["dense", "mla", "window", "linear"])
def test_stages_share_a_rounds_attention(kind):
    """Every stage reads its own layers' cache once a round: a token of context costs its share of the layers."""
    whole, staged = (mixers_of(deployment(*KINDS[kind], pp=stages)) for stages in (1, 4))
    assert staged.decoding(SEQUENCES).context_s == pytest.approx(whole.decoding(SEQUENCES).context_s / 4, rel=0.1)
    assert staged.prefilling(TOKENS).pair_s == pytest.approx(whole.prefilling(TOKENS).pair_s / 4, rel=0.1)


@pytest.mark.usefixtures("data_sheet")
def test_entries_pooled_of_many_tokens_are_attended_to_however_many():
    """DeepSeek-V4's layers of 128 tokens an entry choose none of them: all are multiplied, window or not."""
    d = deployment(COMPRESSED, "b200_sxm", tp=8)
    pooled = tuple(b for b in d.model.blocks if b.attention.kv_compress_ratio == 128)
    found = mixers_of(replace(d, model=replace(d.model, blocks=pooled)))
    assert found.decoding(SEQUENCES).context_s > 0
    assert found.prefilling(TOKENS).pair_s > 0
