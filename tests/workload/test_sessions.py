"""Sessions: prompts that grow by what was said, chains that are prefixes of the next turn's, ends at the context."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workload.tables import same
from trilemma.errors import InputError
from trilemma.workload.arrivals import Arrivals
from trilemma.workload.lengths import Fixed, Geometric, Uniform
from trilemma.workload.prefix import cached_tokens, in_blocks_of
from trilemma.workload.sessions import (
    THINK_TIMES,
    ExponentialTime,
    FixedTime,
    LognormalTime,
    Sessions,
    generate_sessions,
)
from trilemma.workload.streams import stream
from trilemma.workload.transform import tile

CHAT = {
    "turns": Geometric(mean=4.0),
    "user_tokens": Uniform(low=1, high=60),
    "output_tokens": Uniform(low=1, high=90),
    "think_time": ExponentialTime(mean_s=12.0),
}
POISSON = {"process": "poisson", "rate_per_s": 0.5}
CLIENTS = Arrivals(process="closed_loop", requests=9, concurrency=3)

kinds = st.fixed_dictionaries(
    {
        "system_prompt_tokens": st.sampled_from([1, 15, 16, 17, 100]),
        "shared_prefixes": st.integers(1, 5),
        "max_model_len": st.sampled_from([2, 150, 400, 2**31 - 1]),
        "block_tokens": st.sampled_from([1, 7, 16, 512]),
        "turns": st.sampled_from([Fixed(tokens=1), Geometric(mean=3.5), Uniform(low=2, high=9)]),
    }
)


def made(n=40, seed=0, **change):
    return generate_sessions(Arrivals(**POISSON, requests=n), Sessions(**CHAT | change), seed=seed)


def by_session(requests):
    """The row numbers of each session, in order."""
    return [np.flatnonzero(requests.session == s) for s in np.unique(requests.session)]


def chain(requests, row):
    return requests.block_ids[requests.block_offsets[row] : requests.block_offsets[row + 1]]


@given(kinds, st.integers(0, 1000))
def test_every_prompt_is_what_was_said_and_a_few_tokens_more(kind, seed):
    requests = made(seed=seed, **kind)
    for rows in by_session(requests):
        assert np.array_equal(rows, np.arange(rows[0], rows[-1] + 1))  # together and in order
        said = requests.prompt_tokens[rows] + requests.output_tokens[rows]
        asked = requests.prompt_tokens[rows] - np.concatenate([[kind["system_prompt_tokens"]], said[:-1]])
        assert ((asked >= 1) & (asked <= 60)).all()
        assert np.unique(requests.arrival_s[rows]).size == 1
        assert np.isnan(requests.think_s[rows[0]])
        assert (requests.think_s[rows[1:]] >= 0).all()


@given(kinds, st.integers(0, 1000))
def test_a_turns_chain_covers_what_was_said_and_begins_the_next_turns(kind, seed):
    requests = made(seed=seed, **kind)
    said = requests.prompt_tokens + requests.output_tokens
    assert np.array_equal(np.diff(requests.block_offsets), said // kind["block_tokens"])
    for rows in by_session(requests):
        for row, following in zip(rows[:-1], rows[1:], strict=True):
            assert np.array_equal(chain(requests, following)[: chain(requests, row).size], chain(requests, row))


@given(kinds, st.integers(0, 1000))
def test_blocks_are_numbered_without_gaps_and_shared_only_in_the_system_prompt(kind, seed):
    requests = made(seed=seed, **kind)
    ids = requests.block_ids
    used = np.unique(ids)
    assert np.array_equal(used, np.arange(used.size))
    chains = [chain(requests, rows[-1]) for rows in by_session(requests)]
    shared = kind["system_prompt_tokens"] // kind["block_tokens"]
    heads = {tuple(each[:shared].tolist()) for each in chains}
    assert len(heads) <= kind["shared_prefixes"]
    own = np.concatenate([np.empty(0, np.int64), *(each[shared:] for each in chains)])
    assert np.unique(own).size == own.size
    assert used.size == own.size + shared * len(heads)


@given(kinds, st.integers(0, 1000))
def test_a_session_ends_where_the_next_turn_would_not_fit(kind, seed):
    cut, whole = made(seed=seed, **kind), made(seed=seed, **kind | {"max_model_len": 2**31 - 1})
    said = whole.prompt_tokens + whole.output_tokens
    fits = (said <= kind["max_model_len"]) | np.isnan(whole.think_s)  # a first turn is always sent
    assert np.array_equal(whole.session[fits], cut.session)
    assert np.array_equal(whole.prompt_tokens[fits], cut.prompt_tokens)
    assert np.array_equal(whole.think_s[fits], cut.think_s, equal_nan=True)


@given(kinds, st.integers(0, 1000), st.integers(1, 30), st.integers(0, 30))
def test_more_sessions_are_an_extension(kind, seed, n, more):
    short, long = made(n, seed, **kind), made(n + more, seed, **kind)
    first = long.take(slice(0, len(short)))
    for name in ("arrival_s", "prompt_tokens", "output_tokens", "session"):
        assert np.array_equal(getattr(first, name), getattr(short, name)), name
    assert np.array_equal(first.think_s, short.think_s, equal_nan=True)
    # The blocks may be numbered anew, one for one.
    pairs = np.unique(np.stack([first.block_ids, short.block_ids]), axis=1)
    assert pairs.shape[1] == np.unique(first.block_ids).size == np.unique(short.block_ids).size


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not():
    first, again, other = (made(seed=seed) for seed in (3, 3, 4))
    assert same(first, again)
    assert first.think_s.tobytes() == again.think_s.tobytes()
    assert not same(first, other)


def test_one_stream_never_moves_another():
    base = made(turns=Fixed(tokens=4))
    thinking = made(turns=Fixed(tokens=4), think_time=FixedTime(time_s=0.0))
    grouped = made(turns=Fixed(tokens=4), system_prompt_tokens=64, shared_prefixes=3)
    assert np.array_equal(base.prompt_tokens, thinking.prompt_tokens)
    assert np.array_equal(base.output_tokens, grouped.output_tokens)
    assert np.array_equal(base.think_s, grouped.think_s, equal_nan=True)
    assert np.array_equal(base.arrival_s, thinking.arrival_s)


def test_an_endless_cache_holds_all_that_was_said_before_in_whole_blocks():
    requests = made(system_prompt_tokens=160, turns=Fixed(tokens=3))
    cached = cached_tokens(requests).reshape(-1, 3)
    said = (requests.prompt_tokens + requests.output_tokens).reshape(-1, 3)
    assert cached[0, 0] == 0
    assert set(cached[1:, 0]) == {160}
    assert np.array_equal(cached[:, 1:], said[:, :-1] // 16 * 16)


@given(kinds, st.integers(0, 1000), st.sampled_from([2, 3, 32]))
def test_larger_blocks_name_the_same_prefixes(kind, seed, times):
    unit = kind["block_tokens"]
    fine = made(seed=seed, **kind)
    coarse = in_blocks_of(fine, times * unit)
    wanted = made(seed=seed, **kind | {"block_tokens": times * unit})
    assert coarse.block_tokens == times * unit
    assert np.array_equal(coarse.block_offsets, wanted.block_offsets)
    pairs = np.unique(np.stack([coarse.block_ids, wanted.block_ids]), axis=1)
    assert pairs.shape[1] == np.unique(coarse.block_ids).size == np.unique(wanted.block_ids).size
    assert in_blocks_of(coarse, unit) is coarse


def test_blocks_that_do_not_divide_meet_at_their_common_multiple():
    requests = made(block_tokens=6)
    assert in_blocks_of(requests, 4).block_tokens == 12
    plain = replace(requests, block_ids=None, block_offsets=None, block_tokens=0)
    assert in_blocks_of(plain, 4) is plain


def test_each_system_prompt_is_drawn_about_as_often():
    requests = made(4000, turns=Fixed(tokens=1), system_prompt_tokens=16, shared_prefixes=4)
    heads = requests.block_ids[requests.block_offsets[:-1]]
    assert np.bincount(heads) == pytest.approx([1000] * 4, rel=0.12)


def test_tiled_sessions_are_sessions_of_their_own():
    requests = made(10, system_prompt_tokens=32)
    tiled = tile(requests, 3)
    n, blocks = len(requests), int(requests.block_ids.max()) + 1
    assert np.unique(tiled.session).size == 30
    assert np.unique(tiled.block_ids).size == 3 * blocks == int(tiled.block_ids.max()) + 1
    for copy in range(3):
        part = tiled.take(slice(copy * n, (copy + 1) * n))
        assert np.array_equal(part.think_s, requests.think_s, equal_nan=True)
        assert np.array_equal(part.block_ids, requests.block_ids + copy * blocks)


def test_long_conversations_are_written_in_parts(monkeypatch):
    whole = made(system_prompt_tokens=40)
    monkeypatch.setattr("trilemma.workload.sessions._CHUNK_IDS", 5)
    assert same(made(system_prompt_tokens=40), whole)


@pytest.mark.parametrize(
    ("think", "median_s"),
    [
        (FixedTime(time_s=3.0), 3.0),
        (ExponentialTime(mean_s=8.0), 8.0 * np.log(2)),
        (LognormalTime(median_s=10.0, p95_s=60.0), 10.0),
        (LognormalTime(median_s=10.0, sigma=0.5), 10.0),
    ],
    ids=["fixed", "exponential", "lognormal p95", "lognormal sigma"],
)
def test_think_times_have_the_moments_asked_for(think, median_s):
    drawn = think.draw(stream(0, "x"), 100_000)
    assert drawn.mean() == pytest.approx(think.mean_s, rel=0.03)
    assert np.median(drawn) == pytest.approx(median_s, rel=0.03)
    assert type(think) in THINK_TIMES.values()
    if getattr(think, "p95_s", None):
        assert np.percentile(drawn, 95) == pytest.approx(think.p95_s, rel=0.03)


def test_think_times_stay_below_their_cut():
    for think in (ExponentialTime(mean_s=9.0, maximum_s=10.0), LognormalTime(median_s=9.0, sigma=50.0, maximum_s=10.0)):
        assert think.draw(stream(0, "x"), 1000).max() == 10.0


def test_geometric_turns_end_with_the_same_chance_after_each():
    drawn = Geometric(mean=4.0).draw(stream(0, "x"), 40_000)
    assert drawn.mean() == pytest.approx(4.0, rel=0.03)
    assert (drawn > 5).sum() / (drawn > 4).sum() == pytest.approx(0.75, abs=0.02)
    assert Geometric(mean=50.0, maximum=7).draw(stream(0, "x"), 100).max() == 7


def test_a_first_turn_that_cannot_fit_is_sent_and_is_the_last():
    requests = made(turns=Fixed(tokens=2), user_tokens=Fixed(tokens=2**31 - 1), block_tokens=2**20)
    assert len(requests) == 40
    assert set(requests.prompt_tokens) == {2**31 - 1}


def chat(**change):
    return Sessions(**CHAT | change)


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: chat(system_prompt_tokens=-1), "sessions.system_prompt_tokens"),
        (lambda: chat(system_prompt_tokens=0, shared_prefixes=2), "sessions.system_prompt_tokens"),
        (lambda: chat(shared_prefixes=0), "sessions.shared_prefixes"),
        (lambda: chat(block_tokens=0), "sessions.block_tokens"),
        (lambda: chat(max_model_len=1), "sessions.max_model_len"),
        (lambda: chat(max_model_len=2**31), "sessions.max_model_len"),
        (lambda: made(turns=Fixed(tokens=2**31 - 1)), "sessions.turns"),
        (lambda: made(user_tokens=Fixed(tokens=2**31 - 1), system_prompt_tokens=1), "sessions"),
        (lambda: made(user_tokens=Fixed(tokens=2**30), block_tokens=1), "sessions.block_tokens"),
        (lambda: generate_sessions(Arrivals(**POISSON, duration_s=1e-9), chat()), "arrivals.duration"),
        (lambda: generate_sessions(CLIENTS, chat()), "arrivals.process"),
        (lambda: Geometric(mean=0.5), "mean"),
        (lambda: Geometric(mean=float("nan")), "mean"),
        (lambda: Geometric(mean=2.0, maximum=0), "maximum"),
        (lambda: FixedTime(time_s=-1.0), "time"),
        (lambda: FixedTime(time_s=float("nan")), "time"),
        (lambda: ExponentialTime(mean_s=float("inf")), "mean"),
        (lambda: LognormalTime(median_s=0.0, sigma=1.0), "median"),
        (lambda: LognormalTime(median_s=5.0), "p95"),
        (lambda: LognormalTime(median_s=5.0, p95_s=9.0, sigma=1.0), "p95"),
        (lambda: LognormalTime(median_s=5.0, p95_s=4.0), "p95"),
        (lambda: LognormalTime(median_s=5.0, sigma=-1.0), "sigma"),
    ],
)  # fmt: skip
def test_bad_input_is_named(make, where):
    with pytest.raises(InputError) as caught:
        make()
    assert caught.value.where == where
