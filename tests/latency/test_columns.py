"""Columns of kernel times under an engine's constants, and the integer tables made of them."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilemma.catalogue.efficiency import EngineEfficiency
from trilemma.latency.columns import Columns, assemble, grid_to, tabulate
from trilemma.latency.mixers import Decoding, Prefilling
from trilemma.latency.table import FRACTION_BITS

law = settings(max_examples=30, deadline=None)
PS = 1e-12
BUDGET, SEATS = 512, 32
TOKENS, SEQUENCES = grid_to(BUDGET), grid_to(SEATS)
NOT_IN_STEPS = {"request_s", "mtp_tokens"}  # before the scheduler, and tokens a step gains
CONSTANTS = sorted({f.name for f in fields(EngineEfficiency)} - NOT_IN_STEPS)
SCALES = st.floats(0.25, 4)


def engine_of(**changes) -> EngineEfficiency:
    """Kernels as they are and no time of the engine's own, but for `changes`."""
    plain = {f.name: 0.0 if f.name.endswith("_s") else 1.0 for f in fields(EngineEfficiency)}
    return EngineEfficiency(**plain | changes)


@st.composite
def engines(draw):
    constants = {f.name: draw(SCALES) for f in fields(EngineEfficiency)}
    constants |= {name: value * 1e-6 for name, value in constants.items() if name.endswith("_s")}
    return EngineEfficiency(**constants | {"prefill": 1 + draw(SCALES), "expert_prefill": 1 + draw(SCALES)})


def rising(fixed_ps, each_ps, grid):
    """Seconds that rise with every one on the grid."""
    return (fixed_ps + each_ps * grid) * PS


def columns_of(**changes) -> Columns:
    """Every term takes time, whole picoseconds on the grids."""
    plain = Columns(
        tokens=TOKENS,
        by_tokens={
            "GEMMs": rising(4_000_000, 9_000, TOKENS),
            "experts": rising(2_000_000, 7_000, TOKENS),
            "collectives": rising(600_000, 500, TOKENS),
            "elementwise": rising(0, 300, TOKENS),
        },
        prefilling=Prefilling(fixed_s=rising(50_000, 800, TOKENS), pair_s=3 * PS),
        sequences=SEQUENCES,
        head_s=rising(90_000, 1_100, SEQUENCES),
        draft_s=np.zeros_like(SEQUENCES),
        decoding=Decoding(fixed_s=rising(30_000, 2_000, SEQUENCES), context_s=700 * PS, capped_s={128: 40 * PS}),
        layers=10,
        moe_layers=7,
        drafts=0,
        four_bit_experts=False,
    )
    return replace(plain, **changes)


@st.composite
def columns(draw, **changes):
    """Any kernel times, bent and not only rising at one pace."""

    def any_rising(grid):
        steps = draw(st.lists(st.integers(0, 10**6), min_size=grid.size, max_size=grid.size))
        return np.cumsum(steps) * PS

    caps = draw(st.dictionaries(st.sampled_from([128, 512, 4096]), st.integers(0, 1000), max_size=3))
    drawn = {
        "by_tokens": {name: any_rising(TOKENS) for name in ("GEMMs", "experts", "collectives", "elementwise")},
        "prefilling": Prefilling(fixed_s=any_rising(TOKENS), pair_s=draw(st.integers(0, 100)) * PS),
        "head_s": any_rising(SEQUENCES),
        "draft_s": any_rising(SEQUENCES),
        "decoding": Decoding(
            fixed_s=any_rising(SEQUENCES),
            context_s=draw(st.integers(0, 1000)) * PS,
            capped_s={cap: ps * PS for cap, ps in sorted(caps.items())},
        ),
        "layers": draw(st.integers(1, 100)),
        "moe_layers": draw(st.integers(1, 100)),
        "drafts": draw(st.integers(0, 3)),
        "four_bit_experts": draw(st.booleans()),
    }
    return columns_of(**drawn | changes)


@st.composite
def shapes(draw, on_grid=False):
    """A step inside the bounds; with `on_grid` its tokens, prefill tokens and decodes lie on the grids."""
    if on_grid:
        decodes = draw(st.sampled_from([0.0, *SEQUENCES]))
        fitting = [0.0, *(p for p in TOKENS if p + decodes in TOKENS)]
        prefill = draw(st.sampled_from(fitting if decodes else fitting[1:]))
    else:
        decodes = draw(st.integers(0, SEATS))
        prefill = draw(st.integers(0 if decodes else 1, BUDGET - SEATS))
    decodes, prefill = int(decodes), int(prefill)
    context = draw(st.integers(1, 10_000)) * decodes
    return {
        "prefill_tokens": prefill,
        "decodes": decodes,
        "sampling": draw(st.sampled_from([int(n) for n in SEQUENCES])) if on_grid else draw(st.integers(0, SEATS)),
        "context_sum": context,
        "window_sum": min(context, draw(st.integers(0, 128)) * decodes),
        "pair_sum": prefill * (2 * draw(st.integers(0, 5_000)) + prefill + 1),
    }


def table_of(c, engine, **options):
    return tabulate(c, engine, max_num_batched_tokens=BUDGET, max_num_seqs=SEATS, **options)


def step_s(c, engine, shape):
    """One step's seconds, term by term, as they are defined."""

    def at(x, grid, seconds):
        return float(np.interp(x, grid, seconds)) if x else 0.0

    def tokens_s(n):
        scales = {
            "GEMMs": engine.gemm,
            "experts": engine.expert_4bit if c.four_bit_experts else engine.expert,
            "collectives": engine.collective,
            "elementwise": engine.elementwise_passes,
        }
        kernels_s = sum(scale * at(n, TOKENS, c.by_tokens[name]) for name, scale in scales.items())
        return kernels_s + engine.step_s + c.layers * engine.layer_s + c.moe_layers * engine.moe_layer_s

    p, n, k = shape["prefill_tokens"], shape["decodes"], shape["sampling"]
    total_s = tokens_s(p + n)
    if p:
        expert = engine.expert_4bit if c.four_bit_experts else engine.expert
        for name, scale, by in (
            ("GEMMs", engine.gemm, engine.prefill),
            ("experts", expert, engine.expert_prefill),
        ):
            total_s += (by - 1) * scale * (at(p, TOKENS, c.by_tokens[name]) - c.by_tokens[name][0])
        total_s += engine.prefill_layer_s * c.layers
        total_s += engine.prefill_attention * at(p, TOKENS, c.prefilling.fixed_s)
    if n:
        total_s += engine.attention * at(n, SEQUENCES, c.decoding.fixed_s) + at(n, SEQUENCES, c.draft_s)
        total_s += tokens_s(n * (1 + c.drafts)) - tokens_s(n)
    total_s += engine.attention * shape["context_sum"] * c.decoding.context_s
    for cap, slope in c.decoding.capped_s.items():
        inside = shape["window_sum"] if cap == c.window_tokens else n * cap
        total_s += engine.attention * slope * inside
    total_s += engine.prefill_attention * shape["pair_sum"] * c.prefilling.pair_s
    return total_s + engine.gemm * at(k, SEQUENCES, c.head_s) + k * engine.sequence_s


# Grids -------------------------------------------------------------------------------------------------------------


@law
@given(st.integers(1, 200_000))
def test_a_grid_has_every_small_count_both_ends_and_few_between(largest):
    grid = grid_to(largest)
    assert grid[0] == 1
    assert grid[-1] == largest
    assert (np.diff(grid) >= 1).all()
    assert (grid == np.rint(grid)).all()
    assert grid[:16].tolist() == list(range(1, min(largest, 16) + 1))
    assert (grid[16:] / grid[15:-1] < 2**0.5).all()
    assert grid.size < 100


# The table and its terms -------------------------------------------------------------------------------------------


@law
@given(columns(), shapes(on_grid=True))
def test_a_step_on_the_grids_is_the_sum_of_its_terms_to_picoseconds(c, shape):
    """Kernels unscaled, so that slopes are whole picoseconds as drawn; four columns are rounded, one term is cut."""
    engine = engine_of(step_s=12e-6, layer_s=1e-7, prefill_layer_s=2e-7, sequence_s=3e-9)
    assert table_of(c, engine).step_ps(**shape) == pytest.approx(step_s(c, engine, shape) / PS, abs=3, rel=1e-12)


@law
@given(columns(), engines(), shapes(on_grid=True))
def test_an_engines_constants_scale_their_terms(c, engine, shape):
    """Slopes are rounded to picoseconds (a token) and their fractions (a pair)."""
    rounding_ps = 3 + (shape["context_sum"] + shape["window_sum"]) / 2 + shape["pair_sum"] / 2 ** (FRACTION_BITS + 1)
    found_ps = table_of(c, engine).step_ps(**shape)
    assert found_ps == pytest.approx(step_s(c, engine, shape) / PS, abs=rounding_ps + 1e-3)


@law
@given(columns(), engines(), shapes())
def test_between_grid_points_a_step_lies_between_its_neighbours(c, engine, shape):
    """Columns that rise on the grid rise in the table."""
    table = table_of(c, engine)
    assert (np.diff(table.token_ps[1:]) >= 0).all()
    assert (np.diff(table.prefill_ps) >= 0).all()
    assert (np.diff(table.sequence_ps) >= 0).all()
    more = shape | {"prefill_tokens": min(shape["prefill_tokens"] + 1, BUDGET - SEATS)}
    assert table.step_ps(**shape) <= table.step_ps(**more)


@law
@given(columns(), engines())
def test_nothing_takes_no_time_but_one_picosecond(c, engine):
    """The clock must not stall; a step without any token is never simulated."""
    table = table_of(c, engine)
    assert table.token_ps[0] == 1
    assert table.prefill_ps[0] == table.decode_ps[0] == table.sequence_ps[0] == 0
    nothing = {"prefill_tokens": 0, "decodes": 0, "sampling": 0, "context_sum": 0, "pair_sum": 0}
    assert table.step_ps(**nothing) == 1
    assert table.token_ps[1:].min() >= 1


def test_kernels_without_time_still_move_the_clock():
    zero = np.zeros_like(TOKENS)
    c = columns_of(by_tokens=dict.fromkeys(columns_of().by_tokens, zero))
    assert table_of(c, engine_of()).token_ps.tolist() == [1] * (BUDGET + 1)


def test_tables_reach_the_schedulers_bounds_and_no_further():
    table = tabulate(columns_of(), engine_of(), max_num_batched_tokens=300, max_num_seqs=7)
    assert table.token_ps.size == table.prefill_ps.size == 301
    assert table.decode_ps.size == table.sequence_ps.size == 8
    whole = table_of(columns_of(), engine_of())
    assert table.token_ps.tolist() == whole.token_ps[:301].tolist()


@law
@given(columns(), engines(), shapes(), st.floats(0.5, 3))
def test_a_stretch_makes_every_step_so_many_times_as_long(c, engine, shape, stretch):
    plain_ps, stretched_ps = (table_of(c, engine, stretch=by).step_ps(**shape) for by in (1.0, stretch))
    rounding_ps = 3 + (shape["context_sum"] + shape["window_sum"]) / 2 + shape["pair_sum"] / 2 ** (FRACTION_BITS + 1)
    assert stretched_ps == pytest.approx(stretch * plain_ps, abs=(1 + stretch) * rounding_ps + 1e-3)


# An engine's constants ---------------------------------------------------------------------------------------------


@law
@given(columns(), engines(), st.sampled_from(CONSTANTS), st.floats(1, 3), shapes())
def test_no_constant_makes_a_step_shorter_as_it_grows(c, engine, constant, factor, shape):
    slower = replace(engine, **{constant: factor * getattr(engine, constant)})
    assert table_of(c, slower).step_ps(**shape) >= table_of(c, engine).step_ps(**shape)


@pytest.mark.parametrize("constant", CONSTANTS)
def test_every_constant_lengthens_a_step_that_has_everything_in_it(constant):
    full = {
        "prefill_tokens": 256, "pair_sum": 256 * 257, "decodes": 8, "context_sum": 4000, "window_sum": 1024,
        "sampling": 9,
    }  # fmt: skip
    c = columns_of(four_bit_experts=constant == "expert_4bit")
    engine = engine_of(**{f.name: 1e-7 for f in fields(EngineEfficiency) if f.name.endswith("_s")})
    slower = replace(engine, **{constant: 2 * getattr(engine, constant)})
    assert table_of(c, slower).step_ps(**full) > table_of(c, engine).step_ps(**full) + 10


def test_experts_are_scaled_by_the_constant_of_their_width():
    wide, narrow = columns_of(four_bit_experts=False), columns_of(four_bit_experts=True)
    plain_ps = table_of(wide, engine_of()).token_ps
    assert table_of(wide, engine_of(expert_4bit=5.0)).token_ps.tolist() == plain_ps.tolist()
    assert table_of(narrow, engine_of(expert=5.0)).token_ps.tolist() == plain_ps.tolist()
    both = [
        table_of(c, engine_of(**{name: 5.0})).token_ps.tolist()
        for c, name in ((wide, "expert"), (narrow, "expert_4bit"))
    ]
    assert both[0] == both[1] > plain_ps.tolist()


def test_prefill_that_runs_faster_than_kernels_alone_never_takes_less_than_nothing():
    table = table_of(columns_of(), engine_of(prefill=0.01, expert_prefill=0.01, prefill_attention=0.0))
    assert table.prefill_ps.min() == 0


# Drafts ------------------------------------------------------------------------------------------------------------


@law
@given(columns(drafts=0), engines(), st.integers(1, 3), shapes())
def test_drafts_cost_what_verifying_them_takes(c, engine, drafts, shape):
    drafting = replace(c, drafts=drafts)
    plain_ps, drafted_ps = (table_of(of, engine).step_ps(**shape) for of in (c, drafting))
    assert drafted_ps >= plain_ps - 1
    if not shape["decodes"]:
        assert drafted_ps == plain_ps


def test_a_decode_with_two_drafts_computes_three_tokens():
    drafting, plain = (table_of(columns_of(drafts=drafts), engine_of()) for drafts in (2, 0))
    at = {"prefill_tokens": 0, "pair_sum": 0, "context_sum": 0, "sampling": 4}
    extra_ps = drafting.step_ps(decodes=4, **at) - plain.step_ps(decodes=4, **at)
    assert extra_ps == 8 * (9_000 + 7_000 + 500 + 300)
    layers = rising(5_000, 100, SEQUENCES)
    with_layers = table_of(columns_of(drafts=2, draft_s=layers), engine_of())
    assert with_layers.step_ps(decodes=4, **at) - drafting.step_ps(decodes=4, **at) == 5_400


# Windows -----------------------------------------------------------------------------------------------------------


def decoding(**capped_ps) -> Decoding:
    """Caps named t128, t4096: picoseconds a token inside each."""
    caps = {int(name[1:]): ps * PS for name, ps in capped_ps.items()}
    return Decoding(fixed_s=np.zeros_like(SEQUENCES), context_s=0.0, capped_s=caps)


def test_without_caps_there_is_no_window():
    table = table_of(columns_of(decoding=decoding()), engine_of())
    assert (table.window_tokens, table.window_ps, table.context_ps) == (0, 0, 0)


def test_a_cap_that_costs_nothing_is_no_window():
    table = table_of(columns_of(decoding=decoding(t128=0)), engine_of())
    assert (table.window_tokens, table.window_ps) == (0, 0)
    assert (table.decode_ps == 0).all()
    unscaled = table_of(columns_of(decoding=decoding(t128=5)), engine_of(attention=0.0))
    assert (unscaled.window_tokens, unscaled.window_ps) == (0, 0)


def test_the_cap_that_costs_most_when_reached_is_followed_and_others_are_charged_whole():
    c = columns_of(decoding=decoding(t128=100, t1024=20, t4096=3))  # 12,800, 20,480 and 12,288 at their caps
    assert c.window_tokens == 1024
    table = table_of(c, engine_of(attention=2.0))
    assert (table.window_tokens, table.window_ps) == (1024, 40)
    assert table.decode_ps.tolist() == [2 * n * (12_800 + 12_288) for n in range(SEATS + 1)]


def test_a_slope_below_a_picosecond_is_one_still():
    slight = Decoding(fixed_s=np.zeros_like(SEQUENCES), context_s=0.01 * PS, capped_s={64: 0.02 * PS})
    table = table_of(columns_of(decoding=slight), engine_of())
    assert (table.context_ps, table.window_ps, table.window_tokens) == (1, 1, 64)


@law
@given(columns(), engines())
def test_parts_are_seconds_and_never_negative(c, engine):
    parts = assemble(c, engine)
    for name in ("token_s", "prefill_s"):
        assert getattr(parts, name).shape == TOKENS.shape
        assert (getattr(parts, name) >= 0).all()
    for name in ("decode_s", "sequence_s"):
        assert getattr(parts, name).shape == SEQUENCES.shape
        assert (getattr(parts, name) >= 0).all()
    assert min(parts.context_s, parts.window_s, parts.pair_s) >= 0
