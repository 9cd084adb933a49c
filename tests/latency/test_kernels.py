"""Kernels: base times stretched to what is measured, and what is said of where measurements come from."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilemma.catalogue.catalogue import load_catalogue
from trilemma.catalogue.figure import Source
from trilemma.catalogue.surfaces import Found, Surface
from trilemma.errors import UnsupportedError
from trilemma.latency import kernels as module
from trilemma.latency.experts import expert_cost, expert_features, expert_work, reached
from trilemma.latency.gemm import FORMS, form_of, gemm_cost, gemm_features
from trilemma.latency.kernels import Kernels
from trilemma.latency.links import (
    NETWORK_S,
    all_gather,
    all_reduce,
    all_to_all,
    crosses_domains,
    dispatch_combine,
    reduce_scatter,
)
from trilemma.latency.operations import Cost, touched_experts

law = settings(max_examples=60, deadline=None)
CATALOGUE = load_catalogue()
ACCELERATORS = tuple(CATALOGUE.accelerators.values())
H100, B200 = CATALOGUE.accelerator("h100_sxm"), CATALOGUE.accelerator("b200_sxm")
BASE = Cost(
    seconds=np.array([1.0, 2.0, 4.0]),
    memory_s=np.array([0.5, 1.0, 2.0]),
    compute_s=np.array([0.25, 0.5, 1.0]),
    link_s=np.zeros(3),
    fixed_s=np.full(3, 0.25),
)
FEATURES = (np.array([0.0, 1.0, 2.0]), 3.0)
TOKENS = 2.0 ** np.arange(0, 15)
FORMS_OF = [(a, f) for a in ACCELERATORS for f in FORMS if FORMS[f].multiplies_in in a.flops]
on_every_accelerator = pytest.mark.parametrize("accelerator", ACCELERATORS, ids=lambda a: a.name)
sizes = st.sampled_from([128, 576, 1024, 4096, 7168, 28672])


@pytest.fixture
def measured(monkeypatch):
    """measured({operation: Found or None}): what find_surface answers; operations left out have no surface."""

    def answer(found):
        monkeypatch.setattr(module, "find_surface", lambda operation, *_: found.get(operation))

    return answer


def surface(values, source=Source.FITTED, note="") -> Found:
    """Over the first feature, at 0, 1 and 2; a second one is ignored."""
    knots = (np.array([0.0, 1.0, 2.0]), np.zeros(1))
    values = np.asarray(values, float)[:, None]
    return Found(surface=Surface(knots=knots, values=values, spread=(1.0, 1.0), points=1), source=source, note=note)


# Kernels -----------------------------------------------------------------------------------------------------------


def test_without_measurements_the_data_sheet_stands_and_is_a_guess(measured):
    measured({})
    kernels = Kernels(H100, "vllm")
    assert kernels.source is Source.FITTED
    assert kernels.stretch("all_reduce", "bf16", FEATURES).tolist() == [1, 1, 1]
    assert kernels.source is Source.GUESS
    assert list(kernels.notes) == ["no measured kernels of all reduce: data-sheet roofline"]
    kernels.stretch("all_reduce", "bf16", FEATURES)
    assert len(kernels.notes) == 1


def test_measured_kernels_are_base_times_ratio_and_parts_stay(measured):
    measured({"gemm": surface(np.log([2.0, 1.0, 0.5]))})
    kernels = Kernels(H100, "vllm")
    cost = kernels.priced(BASE, "gemm", "bf16", FEATURES)
    assert cost.seconds == pytest.approx([2.0, 2.0, 2.0])
    for part in ("memory_s", "compute_s", "link_s", "fixed_s"):
        assert getattr(cost, part).tolist() == getattr(BASE, part).tolist()
    assert cost.binds == "HBM bandwidth"
    assert (kernels.source, kernels.notes) == (Source.FITTED, {})


def test_the_source_is_the_weakest_of_all_used_and_notes_are_kept_once(measured):
    measured({
        "gemm": surface([0, 0, 0]),
        "moe": surface([0, 0, 0], Source.DERIVED, "kernels of h200_sxm"),
        "all_reduce": surface([0, 0, 0], Source.GUESS, "kernels of b200_sxm"),
    })  # fmt: skip
    kernels = Kernels(H100, "vllm")
    seen = []
    for operation in ("gemm", "moe", "gemm", "moe", "all_reduce", "moe"):
        kernels.stretch(operation, "bf16", FEATURES)
        seen.append(kernels.source)
    assert seen == [Source.FITTED, *[Source.DERIVED] * 3, *[Source.GUESS] * 2]
    assert list(kernels.notes) == ["kernels of h200_sxm", "kernels of b200_sxm"]


def test_two_sets_of_kernels_do_not_share_what_they_rest_on(measured):
    measured({})
    used, fresh = Kernels(H100, "vllm"), Kernels(H100, "vllm")
    used.stretch("gemm", "bf16", FEATURES)
    assert (fresh.source, fresh.notes) == (Source.FITTED, {})


def test_joined_kernels_rest_on_what_both_do(measured):
    measured({"moe": surface([0, 0, 0], Source.DERIVED, "kernels of h200_sxm")})
    one, other = Kernels(H100, "vllm"), Kernels(H100, "vllm")
    other.stretch("moe", "bf16", FEATURES)
    one.join(other)
    assert (one.source, list(one.notes)) == (Source.DERIVED, ["kernels of h200_sxm"])
    other.stretch("gemm", "bf16", FEATURES)
    assert one.source is Source.DERIVED
    other.join(one)
    assert other.source is Source.GUESS


@pytest.mark.parametrize("known", [True, False])
def test_slower_accelerators_stretch_every_kernel(measured, known):
    measured({"gemm": surface([0.1, 0.2, 0.3])} if known else {})
    plain, slower = (Kernels(H100, "vllm", slower).stretch("gemm", "bf16", FEATURES) for slower in (1.0, 1.5))
    assert slower == pytest.approx(1.5 * plain)


def test_surfaces_are_asked_for_by_operation_accelerator_engine_and_format(monkeypatch):
    asked = []
    monkeypatch.setattr(module, "find_surface", lambda *key: asked.append(key))
    Kernels(B200, "sglang").stretch("moe", "nvfp4", FEATURES)
    assert asked == [("moe", B200, "sglang", "nvfp4")]


def test_a_stretch_has_the_shape_of_its_features_together(measured):
    grid = (np.zeros(5), np.zeros((3, 1)))
    for found in ({}, {"gemm": surface([0.5, 0, 0])}):
        measured(found)
        assert Kernels(H100, "vllm").stretch("gemm", "bf16", grid).shape == (3, 5)


# GEMMs -------------------------------------------------------------------------------------------------------------


@law
@given(st.sampled_from(FORMS_OF), st.integers(1, 20_000), sizes, sizes, st.floats(1, 4))
def test_larger_gemms_take_longer_and_none_beats_the_data_sheet(where, m, n, k, factor):
    accelerator, form = where
    row, peak = form_of(form, accelerator)

    def seconds(m, n, k):
        return float(gemm_cost(np.array([float(m)]), n, k, accelerator=accelerator, form=form).seconds[0])

    base = seconds(m, n, k)
    for larger in ((factor * m, n, k), (m, factor * n, k), (m, n, factor * k)):
        assert seconds(*larger) >= base
    assert base > max(n * k * row.weight_bytes / accelerator.hbm_bytes_per_s, 2 * m * n * k / peak)
    assert seconds(2 * m, n, k) < 2 * base  # tokens share weights and a launch


def test_a_gemm_moves_its_weights_its_input_and_its_output():
    """1,024 tokens by 4,096 x 2,048: BF16 throughout; FP8 reads BF16, writes and reads what it multiplies."""
    shape = (np.array([1024.0]), 4096.0, 2048.0)
    bf16, fp8 = (gemm_cost(*shape, accelerator=H100, form=form) for form in ("bf16", "fp8"))
    weights, inputs, outputs = 4096 * 2048, 1024 * 2048, 1024 * 4096
    assert bf16.memory_s[0] == pytest.approx((2 * weights + 2 * inputs + 2 * outputs) / H100.hbm_bytes_per_s)
    assert fp8.memory_s[0] == pytest.approx((weights + 4 * inputs + 2 * outputs) / H100.hbm_bytes_per_s)
    assert bf16.compute_s[0] == pytest.approx(2 * 1024 * weights / H100.flops["bf16"])
    assert fp8.compute_s[0] == pytest.approx(2 * 1024 * weights / H100.flops["fp8"])


@law
@given(st.integers(1, 20_000), sizes, sizes)
def test_narrower_weights_are_read_faster(m, n, k):
    memory = [
        gemm_cost(np.array([float(m)]), n, k, accelerator=B200, form=form).memory_s[0]
        for form in ("w4a16", "w8a16", "bf16")
    ]
    assert memory[0] < memory[1] < memory[2]


def test_every_format_that_an_accelerator_lacks_is_refused_with_its_name():
    a100 = CATALOGUE.accelerator("a100_sxm")
    with pytest.raises(UnsupportedError, match="a100_sxm does not multiply in fp8, which fp8_block kernels do"):
        gemm_cost(np.ones(1), 8, 8, accelerator=a100, form="fp8_block")
    with pytest.raises(UnsupportedError, match="no kernel format 'int3'"):
        gemm_cost(np.ones(1), 8, 8, accelerator=a100, form="int3")


def test_features_of_no_tokens_stay_finite():
    assert all(np.isfinite(f).all() for f in gemm_features(np.array([0.0, 1.0]), 4096.0, 4096.0))
    work = expert_work(np.array([0.0, 1.0]), top_k=8, experts=128, experts_here=16)
    assert all(np.isfinite(f).all() for f in expert_features(work, hidden=4096, inter=1536, experts_here=16))


# Experts -----------------------------------------------------------------------------------------------------------

ROUTING = st.tuples(st.sampled_from([(8, 2), (128, 8), (256, 8), (16, 1)]), st.sampled_from([0.0, 0.3, 0.6, 1.2]))


@law
@given(ROUTING, st.lists(st.integers(1, 100_000), min_size=2, max_size=10))
def test_more_tokens_reach_more_experts_between_those_of_one_and_all(routing, tokens):
    (experts, top_k), skew = routing
    found = reached(np.sort(np.array(tokens, float)), experts, top_k, skew)
    assert (np.diff(found) >= -1e-9).all()
    assert (found >= top_k * (1 - 1e-9)).all()
    assert (found <= experts * (1 + 1e-9)).all()
    assert reached(np.ones(1), experts, top_k, skew)[0] == pytest.approx(top_k)
    assert reached(np.zeros(1), experts, top_k, skew)[0] == 0


@law
@given(st.sampled_from([(8, 2), (128, 8), (256, 8)]), st.integers(1, 4096))
def test_favourites_leave_others_alone(routing, tokens):
    experts, top_k = routing
    found = [reached(np.array([float(tokens)]), experts, top_k, skew)[0] for skew in (0.0, 0.4, 0.8)]
    assert found[0] == pytest.approx(touched_experts(np.array([tokens]), experts, top_k)[0])
    assert found[0] >= found[1] - 1e-9 >= found[2] - 2e-9


@law
@given(st.sampled_from(FORMS_OF), st.integers(1, 50_000), st.sampled_from([8, 16, 64, 128]))
def test_a_rank_computes_its_share_of_the_experts(where, tokens, here):
    accelerator, form = where
    n = np.array([float(tokens)])
    layer = {"hidden": 4096, "accelerator": accelerator, "form": form}
    whole = expert_work(n, top_k=8, experts=128, experts_here=128)
    part = expert_work(n, top_k=8, experts=128, experts_here=here)
    assert part.pairs == pytest.approx(whole.pairs * here / 128)
    assert part.touched == pytest.approx(whole.touched * here / 128)
    some, every = (expert_cost(work, inter=1536, **layer) for work in (part, whole))
    assert some.compute_s == pytest.approx(every.compute_s * here / 128)
    assert some.memory_s == pytest.approx(every.memory_s * here / 128)
    assert some.fixed_s == every.fixed_s
    # An expert cut in as many pieces as ranks: the same work, but for every rank reading every pair's tokens.
    cut = expert_cost(whole, inter=1536 * here / 128, **layer)
    assert cut.compute_s == pytest.approx(some.compute_s)
    assert cut.memory_s >= some.memory_s * (1 - 1e-12)


@law
@given(st.sampled_from(FORMS_OF), st.sampled_from([128, 768, 1536]), st.booleans())
def test_experts_rise_with_tokens_and_read_what_is_touched(where, inter, gated):
    accelerator, form = where
    row, peak = form_of(form, accelerator)
    work = expert_work(TOKENS, top_k=8, experts=128, experts_here=128)
    cost = expert_cost(work, hidden=4096, inter=inter, accelerator=accelerator, form=form, gated=gated)
    assert (np.diff(cost.seconds) > 0).all()
    weights = (3 if gated else 2) * 4096 * inter
    assert (cost.seconds > work.touched * weights * row.weight_bytes / accelerator.hbm_bytes_per_s).all()
    assert (cost.seconds > 2 * TOKENS * 8 * weights / peak).all()


def test_the_fullest_rank_has_more_pairs():
    even, uneven = (expert_work(TOKENS, top_k=8, experts=128, experts_here=16, imbalance=by).pairs for by in (1.0, 1.3))
    assert uneven == pytest.approx(1.3 * even)


# Links -------------------------------------------------------------------------------------------------------------

MESSAGES = 2.0 ** np.arange(0, 31, 3)
EXCHANGES = (all_reduce, all_gather, reduce_scatter, all_to_all)


@on_every_accelerator
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_collectives_rise_with_the_message_and_the_gpus(accelerator, exchange):
    times = np.array([exchange(MESSAGES, g, accelerator=accelerator).base.seconds for g in (2, 4, 8, 16, 64, 128)])
    assert (times > 0).all()
    assert (np.diff(times, axis=1) > 0).all()
    assert (np.diff(times, axis=0) >= -1e-15).all()


@on_every_accelerator
def test_an_all_reduce_is_a_reduce_scatter_and_an_all_gather(accelerator):
    for gpus in (2, 8, 16):
        whole, *halves = (
            exchange(MESSAGES, gpus, accelerator=accelerator).base
            for exchange in (all_reduce, reduce_scatter, all_gather)
        )
        across = NETWORK_S if crosses_domains(gpus, accelerator) else 0.0
        assert whole.link_s + across == pytest.approx(halves[0].link_s + halves[1].link_s)


@on_every_accelerator
def test_leaving_the_domain_costs_the_networks_latency_at_least(accelerator):
    inside, outside = accelerator.link_domain_gpus, 2 * accelerator.link_domain_gpus
    assert not crosses_domains(inside, accelerator)
    assert crosses_domains(outside, accelerator)
    for exchange in EXCHANGES:
        near, far = (exchange(MESSAGES, g, accelerator=accelerator).base for g in (inside, outside))
        assert (far.seconds > near.seconds).all()
        assert (far.link_s >= NETWORK_S).all()


@on_every_accelerator
@pytest.mark.parametrize("low_latency", [True, False])
def test_dispatch_and_combine_rise_with_tokens_width_and_choices(accelerator, low_latency):
    shape = {"hidden": 4096, "top_k": 4, "gpus": 8, "accelerator": accelerator, "low_latency": low_latency}
    base = dispatch_combine(TOKENS, **shape).base.seconds
    assert (np.diff(base) > 0).all()
    for larger in ({"hidden": 8192}, {"top_k": 8}, {"gpus": 16}):
        assert (dispatch_combine(TOKENS, **shape | larger).base.seconds > base).all()


def test_low_latency_sends_a_copy_per_expert_and_otherwise_one_per_gpu():
    shape = {"hidden": 7168, "gpus": 8, "accelerator": H100}
    for top_k in (1, 8):
        each, once = (
            dispatch_combine(TOKENS, top_k=top_k, low_latency=mode, **shape).base.seconds for mode in (True, False)
        )
        assert (once == pytest.approx(each)) if top_k == 1 else (once < each).all()


@on_every_accelerator
def test_features_of_collectives_are_finite_and_of_the_gpus_inside_a_domain(accelerator):
    calls = [exchange(np.array([0.0, 1.0, 1e9]), 64, accelerator=accelerator) for exchange in EXCHANGES]
    shape = {"hidden": 7168, "top_k": 8, "gpus": 64, "accelerator": accelerator, "low_latency": True}
    calls.append(dispatch_combine(np.array([0.0, 1.0, 512.0]), **shape))
    for call in calls:
        assert all(np.isfinite(f).all() for f in call.features)
        assert 2 ** call.features[-1] == pytest.approx(min(64, accelerator.link_domain_gpus)), call.operation
