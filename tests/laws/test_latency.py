"""Laws every step time obeys: more work is never faster, better hardware never slower, and physics bounds both."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.latency.deployments import KINDS, deployment, model_of, parts_of, steps, steps_of, table_of

from trilemma.catalogue.precision import Role
from trilemma.deployment.kv import kv_bytes_per_token_per_gpu
from trilemma.deployment.weights import active_params, matrices
from trilemma.latency.mixers import Typical
from trilemma.latency.operations import touched_experts

# The fixture below changes nothing between examples.
law = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
kinds = st.sampled_from(sorted(KINDS))
every_kind = pytest.mark.parametrize("kind", sorted(KINDS))
BUDGET, SEATS = 2048, 64
PS = 1e-12
ROUNDING_S = 4e-12  # a table rounds four terms to picoseconds
CONTEXT_ROUNDING = 0.005  # of attention: the smallest coefficient in the catalogue is about 100 ps a token
INTERPOLATION = 0.012  # of what grids of four points per doubling leave; the worst of 20,000 random steps was 0.0094


@pytest.fixture
def data_sheet(monkeypatch):
    """No kernel is measured: base times alone, which are affine in contexts and pairs to begin with."""
    monkeypatch.setattr("trilemma.latency.kernels.find_surface", lambda *_: None)


def base_of(kind, **typical):
    """A kind's model made afresh: those of `steps_of` are kept and rest on measured kernels."""
    return steps(*KINDS[kind], typical=typical)


@st.composite
def shapes(draw):
    """A step in the bounds of the tables: decodes, prefill tokens, and what both attend to."""
    decodes = draw(st.integers(0, SEATS))
    prefill = draw(st.integers(0 if decodes else 1, BUDGET - SEATS))
    cached = draw(st.integers(0, 30_000))
    context = draw(st.integers(1, 30_000))
    return {
        "prefill_tokens": prefill,
        "decodes": decodes,
        "context_sum": decodes * context,
        "window_sum": decodes * draw(st.integers(1, context)),
        "pair_sum": prefill * (2 * cached + prefill + 1),
    }


def decoding(kind, contexts, model=None):
    """A step that decodes sequences with these tokens computed before it."""
    attended = [context + 1 for context in contexts]
    window = (model or steps_of(kind)).columns.window_tokens
    return {
        "decodes": len(attended),
        "sampling": len(attended),
        "context_sum": sum(attended),
        "window_sum": sum(min(tokens, window) for tokens in attended),
    }


def decode_ps(kind, contexts):
    return table_of(kind).step_ps(prefill_tokens=0, pair_sum=0, **decoding(kind, contexts))


# The table and the terms ---------------------------------------------------------------------------------------


@law
@given(kinds, shapes())
def test_the_table_is_the_sum_of_the_terms(kind, shape):
    terms = steps_of(kind).terms(**shape, sampling=shape["decodes"])
    table_s = table_of(kind).step_ps(**shape, sampling=shape["decodes"]) * PS
    assert table_s == pytest.approx(terms.total_s, rel=INTERPOLATION, abs=ROUNDING_S)


@every_kind
@pytest.mark.parametrize("tokens", [1, 2, 3, 8, 15, 16])
def test_the_table_is_exact_for_few_tokens(kind, tokens):
    """Up to picoseconds, and half of one per token of context, in and out of windows."""
    contexts = [100] * tokens
    shape = decoding(kind, contexts)
    rounding_s = ROUNDING_S + (shape["context_sum"] + shape["window_sum"]) * PS / 2
    terms_s = steps_of(kind).terms(**shape).total_s
    assert decode_ps(kind, contexts) * PS == pytest.approx(terms_s, rel=1e-12, abs=rounding_s)


@every_kind
def test_rounding_to_picoseconds_moves_attention_by_little(kind):
    parts, table = parts_of(steps_of(kind)), table_of(kind)
    assert table.context_ps * PS == pytest.approx(parts.context_s, rel=CONTEXT_ROUNDING)
    assert table.window_ps * PS == pytest.approx(parts.window_s, rel=CONTEXT_ROUNDING)
    assert table.window_tokens in {0, steps_of(kind).columns.window_tokens}
    assert (table.window_tokens > 0) == (parts.window_s > 0)


@law
@given(kinds, shapes(), st.integers(1, 8))
def test_finishing_prompts_cost_their_sampling_more(kind, shape, finishing):
    """A prompt that ends samples a token and pays for that alone: it decodes in the next step."""
    model, sampling = steps_of(kind), min(SEATS, shape["decodes"] + finishing)
    terms_s = model.terms(**shape, sampling=sampling).total_s
    table_s = table_of(kind).step_ps(**shape, sampling=sampling) * PS
    assert terms_s * (1 - INTERPOLATION) - ROUNDING_S <= table_s <= terms_s * (1 + INTERPOLATION) + ROUNDING_S


# More work -----------------------------------------------------------------------------------------------------


@every_kind
def test_more_tokens_are_never_faster(kind):
    table = table_of(kind)
    assert (np.diff(table.token_ps) >= 0).all()
    assert (np.diff(table.token_ps[1:] + table.prefill_ps[1:]) >= 0).all()
    assert (np.diff(table.sequence_ps) >= 0).all()
    assert table.prefill_ps[0] == 0
    assert table.sequence_ps[0] == 0


@law
@given(kinds, shapes(), st.integers(0, 500), st.integers(0, 20), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_step_with_more_in_it_is_never_faster(kind, shape, prefill, decodes, context, pairs):
    more = {
        "prefill_tokens": min(shape["prefill_tokens"] + prefill, BUDGET - SEATS),
        "decodes": min(shape["decodes"] + decodes, SEATS),
        "context_sum": shape["context_sum"] + context,
        "window_sum": shape["window_sum"] + context,
        "pair_sum": shape["pair_sum"] + pairs,
    }
    table = table_of(kind)
    less_ps = table.step_ps(**shape, sampling=shape["decodes"])
    assert less_ps <= table.step_ps(**more, sampling=more["decodes"])


@every_kind
def test_context_costs_where_a_layer_keeps_all_of_it(kind):
    """A model of window, linear or state layers alone pays nothing for a context beyond windows; others do."""
    grows = kind != "window_alone"
    model, table = steps_of(kind), table_of(kind)
    assert (parts_of(model).context_s > 0) == grows
    assert (table.context_ps > 0) == grows
    assert (table.pair_fp > 0) == grows
    short = model.terms(decodes=8, context_sum=8 * 10_000, sampling=8).total_s
    long = model.terms(decodes=8, context_sum=8 * 100_000, sampling=8).total_s
    assert (long > short) == grows
    assert long >= short


@every_kind
def test_step_time_is_affine_in_the_context_and_what_of_it_is_in_windows(kind):
    """What the simulator's skipping rests on, in the terms and in the table."""
    sums = [{"context_sum": c, "window_sum": w} for c, w in ((4000, 100), (8000, 200), (12_000, 300))]
    at = [steps_of(kind).terms(decodes=4, sampling=4, **of).total_s for of in sums]
    assert at[2] - at[1] == pytest.approx(at[1] - at[0], rel=1e-6, abs=1e-15)
    at_ps = [table_of(kind).step_ps(prefill_tokens=0, decodes=4, sampling=4, pair_sum=0, **of) for of in sums]
    assert at_ps[2] - at_ps[1] == at_ps[1] - at_ps[0]


# Windows -------------------------------------------------------------------------------------------------------

WINDOWED = {"moe_4bit": 128, "compressed": 4 * 512, "window": 1024, "window_alone": 4096}
every_windowed = pytest.mark.parametrize("kind", sorted(WINDOWED))
contexts_of = st.lists(st.integers(1, 100_000), min_size=1, max_size=SEATS)


@pytest.mark.usefixtures("data_sheet")
@every_kind
def test_windows_and_compressed_choices_cap_what_a_decode_attends_to(kind):
    """DeepSeek-V4 chooses 512 entries of four tokens each: all of them until there are 2048 tokens."""
    model = base_of(kind)
    table = model.table()
    assert table.window_tokens == model.columns.window_tokens == WINDOWED.get(kind, 0)
    assert (parts_of(model).window_s > 0) == (table.window_ps > 0) == (kind in WINDOWED)


@every_kind
def test_measured_kernels_cap_at_the_same_tokens_or_are_flat_below_them(kind):
    """A window of 128 tokens takes what launching its kernel takes, on some accelerators."""
    assert table_of(kind).window_tokens in {0, WINDOWED.get(kind, 0)}
    assert kind not in WINDOWED or WINDOWED[kind] <= 128 or table_of(kind).window_ps > 0


@law
@given(kinds, contexts_of, st.data())
def test_a_longer_context_is_never_faster(kind, contexts, data):
    grown = data.draw(st.lists(st.integers(0, 20_000), min_size=len(contexts), max_size=len(contexts)))
    longer = [context + more for context, more in zip(contexts, grown, strict=True)]
    assert decode_ps(kind, contexts) <= decode_ps(kind, longer)


@every_windowed
@pytest.mark.parametrize("measured", [True, False])
def test_a_step_grows_faster_below_a_window_than_above(kind, measured, monkeypatch):
    """By the work of all layers up to the window, by that of the others from there on: a corner at the window."""
    if not measured:
        monkeypatch.setattr("trilemma.latency.kernels.find_surface", lambda *_: None)
    model, window = base_of(kind), WINDOWED[kind]
    table = model.table()

    def decode(context):
        return table.step_ps(prefill_tokens=0, pair_sum=0, **decoding(kind, [context] * 8, model))

    start, inside, full, beyond, far = (decode(c) for c in (0, 1, window - 1, window, 2 * window))
    assert inside - start == 8 * (table.context_ps + table.window_ps)
    assert full - start == 8 * (window - 1) * (table.context_ps + table.window_ps)
    assert beyond - full == 8 * table.context_ps
    assert far - beyond == 8 * window * table.context_ps


@given(st.lists(st.integers(4095, 100_000), min_size=1, max_size=SEATS))
def test_beyond_the_window_of_every_layer_context_is_free(contexts):
    assert decode_ps("window_alone", contexts) == decode_ps("window_alone", [4095] * len(contexts))


@law
@given(st.sampled_from(sorted(WINDOWED)), contexts_of)
def test_one_mean_context_in_place_of_many_never_costs_less(kind, contexts):
    """What terms() takes where it is given no window_sum; the same for equal contexts."""
    model, shape = steps_of(kind), decoding(kind, contexts)
    mean = {name: value for name, value in shape.items() if name != "window_sum"}
    assert model.terms(**shape).total_s <= model.terms(**mean).total_s * (1 + 1e-12)
    equal = decoding(kind, contexts[:1] * len(contexts))
    without = {name: value for name, value in equal.items() if name != "window_sum"}
    assert model.terms(**without).total_s == model.terms(**equal).total_s


def without_caps(base):
    """The same layers with no window and no choice: all attend to the whole context."""
    open_ended = {"window_tokens": None, "index_topk": 0, "index_heads": 0, "index_key_bytes": 0}
    blocks = tuple(replace(b, attention=replace(b.attention, **open_ended)) for b in base.deployment.model.blocks)
    return model_of(replace(base.deployment, model=replace(base.deployment.model, blocks=blocks)))


@pytest.mark.usefixtures("data_sheet")
@law
@given(st.sampled_from(["moe_4bit", "window", "window_alone"]), contexts_of)
def test_a_windowed_layer_reads_what_a_full_one_would_of_a_context_cut_to_the_window(kind, contexts):
    model, window = base_of(kind), WINDOWED[kind]
    full, shape = without_caps(model), decoding(kind, contexts, model)
    cut = full.terms(decodes=len(contexts), context_sum=shape["window_sum"]).seconds["decode attention"]
    beyond = (shape["context_sum"] - shape["window_sum"]) * parts_of(model).context_s
    assert model.terms(**shape).seconds["decode attention"] == pytest.approx(cut + beyond, rel=1e-9)
    if max(contexts) < window:
        assert model.terms(**shape).total_s == pytest.approx(full.terms(**shape).total_s, rel=1e-9)


@pytest.mark.usefixtures("data_sheet")
@law
@given(st.integers(1, SEATS), st.integers(4096, 100_000))
def test_sparse_attention_is_full_attention_to_the_choice_and_reads_every_index_key(decodes, context):
    """At contexts like the typical one: DeepSeek-V3.2 chooses 2048 of them, with 64 heads of 128 over 132 bytes."""
    model, accelerator = base_of("sparse_mla", context_tokens=context), steps_of("sparse_mla").accelerator
    chosen = without_caps(model).terms(decodes=decodes, context_sum=decodes * 2048).seconds["decode attention"]
    index_s = 61 * (132 / accelerator.hbm_bytes_per_s + 2 * 64 * 128 / accelerator.flops["bf16"])
    index_s *= model.efficiency.engine.attention
    found = model.terms(decodes=decodes, context_sum=decodes * context).seconds["decode attention"]
    assert found == pytest.approx(chosen + decodes * context * index_s, rel=1e-9)
    assert parts_of(model).context_s == pytest.approx(index_s, rel=1e-9)  # both ends of the slope lie beyond the choice


# Better hardware -----------------------------------------------------------------------------------------------

FASTER = {
    "hbm_bytes_per_s": lambda a, x: replace(a, hbm_bytes_per_s=a.hbm_bytes_per_s * x),
    "flops": lambda a, x: replace(a, flops={name: peak * x for name, peak in a.flops.items()}),
    "link_bytes_per_s": lambda a, x: replace(a, link_bytes_per_s=a.link_bytes_per_s * x),
    "network_bytes_per_s": lambda a, x: replace(a, network_bytes_per_s=a.network_bytes_per_s * x),
}


@pytest.mark.usefixtures("data_sheet")
@law
@given(kinds, shapes(), st.sampled_from(sorted(FASTER)), st.floats(1.01, 10))
def test_faster_hardware_is_never_slower(kind, shape, what, factor):
    base = base_of(kind)
    faster = model_of(replace(base.deployment, accelerator=FASTER[what](base.accelerator, factor)))
    before, after = (m.terms(**shape, sampling=shape["decodes"]) for m in (base, faster))
    assert before.seconds.keys() == after.seconds.keys()
    assert after.total_s <= before.total_s * (1 + 1e-12)
    for term, seconds in after.seconds.items():
        if term != "prefill overhead":  # beyond one token's time, which memory makes shorter too
            assert seconds <= before.seconds[term] * (1 + 1e-9), term


@law
@given(kinds, st.integers(0, SEATS), st.integers(0, 4), st.sampled_from(sorted(FASTER)), st.floats(1.01, 10))
def test_faster_hardware_is_never_slower_under_measured_kernels(kind, decodes, prompts, what, factor):
    """Measured over base time stays what it is. At the typical lengths, where attention is its kernels' time."""
    base, typical = steps_of(kind), Typical()
    prompt, context = 256 * prompts, typical.context_tokens
    if not decodes + prompt:
        return
    shape = {
        "prefill_tokens": prompt, "pair_sum": prompt * (prompt + 1), "decodes": decodes, "sampling": decodes,
        "context_sum": decodes * int(context),
    }  # fmt: skip
    faster = model_of(replace(base.deployment, accelerator=FASTER[what](base.accelerator, factor)))
    assert faster.terms(**shape).total_s <= base.terms(**shape).total_s * (1 + 1e-6)


@every_kind
def test_bandwidth_and_flops_do_speed_something_up(kind):
    base = steps_of(kind)
    shape = {"prefill_tokens": 1024, "pair_sum": 1024 * 1025, "decodes": 8, "context_sum": 80_000, "sampling": 8}
    before_s = base.terms(**shape).total_s
    for what in ("hbm_bytes_per_s", "flops"):
        faster = model_of(replace(base.deployment, accelerator=FASTER[what](base.accelerator, 2.0)))
        assert faster.terms(**shape).total_s < before_s


@pytest.mark.parametrize(
    ("model", "accelerator", "precision"),
    [
        ("meta-llama/Meta-Llama-3.1-70B", "h100_sxm", "fp8"),
        ("meta-llama/Meta-Llama-3.1-405B", "b200_sxm", "bf16"),
        ("Qwen/Qwen3-235B-A22B", "h200_sxm", "bf16"),
        ("deepseek-ai/DeepSeek-V3", "b200_sxm", "fp8"),
        ("google/gemma-3-27b-it", "l40s", "bf16"),
        ("Qwen/Qwen3.5-122B-A10B", "mi300x", "bf16"),
    ],
)
@pytest.mark.parametrize("measured", [True, False])
def test_more_tensor_parallelism_never_makes_compute_slower(model, accelerator, precision, measured, monkeypatch):
    tokens = np.array([1.0, 7.0, 64.0, 512.0, 8192.0])
    if not measured:
        monkeypatch.setattr("trilemma.latency.kernels.find_surface", lambda *_: None)
    slack = 1.02 if measured else 1 + 1e-9  # surfaces of heads that more GPUs no longer split differ by a percent
    ways = [steps(model, accelerator, precision=precision, tp=tp) for tp in (1, 2, 4, 8)]
    for fewer, more in zip(ways, ways[1:], strict=False):
        for term in ("GEMMs", "experts"):
            assert (more.by_tokens(tokens)[term].seconds <= fewer.by_tokens(tokens)[term].seconds).all()
        assert parts_of(more).context_s <= slack * parts_of(fewer).context_s
        assert parts_of(more).pair_s <= slack * parts_of(fewer).pair_s
    collectives = [w.by_tokens(tokens)["collectives"].seconds for w in ways]
    assert (collectives[0] == 0).all()
    assert (collectives[1] > 0).all()
    if not measured:
        assert (np.diff(collectives, axis=0) > 0).all()
    else:  # algorithms change with the number of GPUs
        assert (collectives[3] > 0.7 * collectives[1]).all()
        assert collectives[3][-1] > collectives[1][-1]


@pytest.mark.parametrize("accelerator", ["h100_sxm", "h200_sxm", "b200_sxm", "l40s", "mi300x"])
def test_fp8_decode_gemms_beat_bf16_where_memory_binds(accelerator):
    """Half the bytes: between half the time and all of it for batches far below the ridge of the roofline."""
    tokens = np.array([1.0, 4.0, 16.0])
    fp8, bf16 = (
        steps("meta-llama/Meta-Llama-3.1-70B", accelerator, precision=name).by_tokens(tokens)["GEMMs"].seconds
        for name in ("fp8", "bf16")
    )
    assert (fp8 < 0.75 * bf16).all()
    assert (fp8 > 0.4 * bf16).all()


@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize("kind", ["dense", "moe", "mla", "window", "linear"])
def test_an_fp8_cache_is_read_faster(kind, measured, monkeypatch):
    """By half its time at most on the data sheet; measured kernels are others, which still have to read it."""
    if not measured:
        monkeypatch.setattr("trilemma.latency.kernels.find_surface", lambda *_: None)
    base = base_of(kind)
    fp8 = model_of(replace(base.deployment, kv_bytes_per_element=1.0))
    bf16_s, fp8_s = (parts_of(m).context_s for m in (base, fp8))
    assert fp8_s < bf16_s
    if measured:
        d = fp8.deployment
        read_s = kv_bytes_per_token_per_gpu(d.model, 1.0, d.parallelism) / d.accelerator.hbm_bytes_per_s
        assert fp8_s + parts_of(fp8).window_s > 0.95 * read_s * fp8.efficiency.engine.attention
    else:
        assert fp8_s >= 0.5 * bf16_s * (1 - 1e-9)


def test_speculative_layers_add_to_a_step():
    """A decode computes three tokens instead of one: at most three times the work, and what drafts them."""
    name = ("deepseek-ai/DeepSeek-V3", "b200_sxm", "sglang", "fp8", 8)
    one = {"decodes": 4, "context_sum": 4000, "sampling": 4}
    plain_s, speculative_s = (steps(*name, mtp=mtp).terms(**one).total_s for mtp in (False, True))
    assert 1.03 * plain_s < speculative_s < 1.6 * plain_s
    assert speculative_s < steps(*name).terms(decodes=12, context_sum=12_000, sampling=12).total_s * 1.2


# Physics -------------------------------------------------------------------------------------------------------


def roofline_floor_s(kind: str, tokens: float) -> tuple[float, float]:
    """(reading every weight a step touches once, multiplying by all a token uses) at data-sheet peaks over all GPUs."""
    d = steps_of(kind).deployment
    everyone = tokens * d.parallelism.data
    read_bytes = 0.0
    for m in matrices(d.model):
        if m.is_gemm and m.role not in {Role.HEAD, Role.VISION}:
            touched = touched_experts(np.array([everyone]), m.copies, m.used)[0] if m.role is Role.EXPERT else m.copies
            read_bytes += m.rows * m.cols * m.layers * touched * d.precision.bytes_per_weight(m.role)
    # The part of the routed experts is even over GPUs; attention-DP ranks and replicated matrices only add to it.
    flops = 2 * everyone * (active_params(d.model, count_embedding=False) - d.model.hidden * d.model.vocab)
    peak = max(d.accelerator.flops.values())
    gpus = d.parallelism.gpus
    return read_bytes / (d.accelerator.hbm_bytes_per_s * gpus), flops / (peak * gpus)


@every_kind
@pytest.mark.parametrize("tokens", [1, 64, 2048])
def test_no_step_beats_the_data_sheet(kind, tokens):
    model = steps_of(kind)
    one = np.array([float(tokens)])
    terms = model.by_tokens(one)
    predicted_s = float((terms["GEMMs"] + terms["experts"]).seconds[0])
    read_s, multiply_s = roofline_floor_s(kind, tokens)
    assert predicted_s > max(read_s, multiply_s)
    assert predicted_s < 30 * (read_s + multiply_s) + 0.1


@law
@given(st.integers(1, 512), st.integers(1, 512), st.lists(st.integers(1, 10**6), min_size=2, max_size=20))
def test_touched_experts_lie_between_those_of_one_token_and_all(experts, per_token, tokens):
    per_token = min(per_token, experts)
    touched = touched_experts(np.sort(np.array(tokens, dtype=float)), experts, per_token)
    assert (touched >= per_token * (1 - 1e-9)).all()
    assert (touched <= experts).all()
    assert (np.diff(touched) >= -1e-9).all()
    assert touched_experts(np.array([1.0]), experts, per_token)[0] == pytest.approx(per_token)
    assert touched_experts(np.array([0.0]), experts, per_token)[0] == 0


def test_touched_experts_match_drawing_them():
    """Even routing draws `used` distinct experts per token: the formula against a simulation of it."""
    rng = np.random.default_rng(3)
    for experts, used, tokens in ((128, 8, 16), (256, 8, 64), (8, 2, 3)):
        drawn = [
            np.unique(np.concatenate([rng.choice(experts, used, replace=False) for _ in range(tokens)])).size
            for _ in range(300)
        ]
        expected = touched_experts(np.array([float(tokens)]), experts, used)[0]
        assert abs(np.mean(drawn) - expected) < 4 * np.std(drawn) / np.sqrt(300) + 1e-9


@every_kind
def test_named_terms_are_positive_and_each_says_what_binds_it(kind):
    terms = steps_of(kind).terms(prefill_tokens=512, pair_sum=512 * 513, decodes=8, context_sum=8 * 2000, sampling=9)
    assert terms.total_s == pytest.approx(sum(terms.seconds.values()))
    assert terms.seconds.keys() == terms.binds.keys()
    assert min(terms.seconds.values()) > 0
    assert set(terms.binds.values()) <= {"HBM bandwidth", "FLOPs", "link", "overhead"}
    d = steps_of(kind).deployment
    assert ("experts" in terms.seconds) == d.model.is_moe
    assert ("collectives" in terms.seconds) == (d.parallelism.gpus > 1)


def test_a_row_of_the_table_is_never_shorter_than_the_scheduler_needs():
    table = steps("Qwen/Qwen3-8B", "h100_sxm", budget=8192, seqs=1024).table()
    assert table.token_ps.size == table.prefill_ps.size == 8193
    assert table.sequence_ps.size == 1025
    assert deployment("Qwen/Qwen3-8B", "h100_sxm").knobs.max_num_batched_tokens == BUDGET
