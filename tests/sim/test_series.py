"""Samples to a series: nothing is lost, shares stay shares, and a made-up engine's history is found again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilemma.metrics.series import Series
from trilemma.sim.series import MOST_INTERVALS, grid_ps, series_of

STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 0, 3, 40]),  # idle before the step
        st.integers(1, 12),  # prefill ps
        st.integers(1, 12),  # decode ps
        st.integers(0, 50),  # prefill tokens
        st.integers(1, 9),  # decode tokens
        st.integers(0, 20),  # blocks in use after it
    ),
    min_size=1,
    max_size=40,
)


def history(steps):
    """(steps, 8) what the columns are after each step, one request being inside while steps follow each other."""
    rows, now = [], 0
    totals = np.zeros(4, dtype=np.int64)
    for idle, prefill_ps, decode_ps, prefill_tokens, decode_tokens, blocks in steps:
        now += idle + prefill_ps + decode_ps
        totals += (prefill_tokens, decode_tokens, prefill_ps, decode_ps)
        rows.append([now, 1, blocks, *totals, 0])
    return np.array(rows, dtype=np.int64)


def spells(steps):
    """When each stretch of steps without a break began and ended."""
    begins, ends, now = [], [], 0
    for idle, prefill_ps, decode_ps, *_ in steps:
        if idle or not begins:
            begins.append(now + idle)
            ends.append(0)
        now += idle + prefill_ps + decode_ps
        ends[-1] = now
    return np.array(begins), np.array(ends)


def sampled(rows, resolution_ps):
    """What a replica keeps: the first step end at or after each multiple, once."""
    wanted = np.searchsorted(rows[:, 0], grid_ps(resolution_ps, int(rows[-1, 0])), side="left")
    return rows[np.unique(wanted)]


def made(histories, resolution_ps, *, samples=None, kv_blocks=20, **requests):
    """The series of replicas with these histories; one request a spell unless others are given."""
    begins, ends = zip(*(spells(steps) for steps in histories), strict=True)
    start, left = np.concatenate(begins), np.concatenate(ends)
    rows = [history(steps) for steps in histories]
    given = {
        "replica": np.repeat(np.arange(len(histories)), [each.size for each in begins]),
        "arrival_ps": start,
        "start_ps": start,
        "left_ps": left,
        "prompt_tokens": np.full(start.size, 10),
        "hit_tokens": np.full(start.size, 4),
    }
    return series_of(
        [sampled(each, resolution_ps) for each in rows] if samples is None else samples,
        np.stack([each[-1] for each in rows]),
        resolution_ps=resolution_ps,
        kv_blocks=kv_blocks,
        **given | requests,
    )


@given(st.lists(STEPS, min_size=1, max_size=3), st.sampled_from([1, 7, 25, 1000]))
def test_no_work_and_no_time_is_lost(histories, resolution_ps):
    series = made(histories, resolution_ps)
    ends = [history(steps)[-1] for steps in histories]
    assert series.prefill_tokens.sum() == pytest.approx(sum(end[3] for end in ends))
    assert series.decode_tokens.sum() == pytest.approx(sum(end[4] for end in ends))
    replicas_ps = series.length_s * 1e12 * len(histories)
    assert (series.prefill_share * replicas_ps).sum() == pytest.approx(sum(end[5] for end in ends))
    assert (series.decode_share * replicas_ps).sum() == pytest.approx(sum(end[6] for end in ends))
    assert series.length_s.sum() * 1e12 == pytest.approx(max(end[0] for end in ends))
    assert series.arrivals.sum() == series.answers.sum() == sum(spells(steps)[0].size for steps in histories)


@given(st.lists(STEPS, min_size=1, max_size=3), st.sampled_from([1, 7, 25, 1000]))
def test_shares_are_shares(histories, resolution_ps):
    series = made(histories, resolution_ps)
    for share in (series.prefill_share, series.decode_share, series.idle_share, series.kv_share):
        assert (share >= -1e-12).all()
        assert (share <= 1 + 1e-9).all()
    assert series.prefill_share + series.decode_share + series.idle_share == pytest.approx(np.ones(len(series)))
    assert (series.running >= 0).all()
    assert (series.waiting >= 0).all()


@given(STEPS, st.sampled_from([7, 25, 100]))
def test_work_is_found_in_its_interval_to_within_an_interval_and_a_step(steps, resolution_ps):
    rows, series = history(steps), made([steps], resolution_ps)
    busy = np.cumsum(series.prefill_tokens)[:-1]
    edges = grid_ps(resolution_ps, int(rows[-1, 0]))[1:]
    done = np.concatenate([[0], rows[:, 3]])
    longest = max(prefill_ps + decode_ps for _, prefill_ps, decode_ps, *_ in steps)
    late = done[np.searchsorted(rows[:, 0], edges - resolution_ps - longest, side="right")]
    early = done[np.minimum(np.searchsorted(rows[:, 0], edges, side="left") + 1, rows.shape[0])]
    assert (busy >= late - 1e-6).all()
    assert (busy <= early + 1e-6).all()


@given(STEPS)
def test_with_a_sample_at_every_step_the_busy_time_is_exact(steps):
    busy_steps = [(0, *rest) for _, *rest in steps]
    rows = history(busy_steps)
    series = made([busy_steps], 1, samples=[rows])
    assert series.idle_share == pytest.approx(np.zeros(len(series)), abs=1e-9)
    after = np.cumsum(series.decode_tokens)[rows[:, 0] - 1]
    assert after == pytest.approx(rows[:, 4].astype(float))


def test_a_lull_is_idle_and_empty():
    steps = [(0, 5, 5, 50, 1, 8), (80, 5, 5, 50, 1, 12)]  # 0 to 10 busy, 90 to 100 busy
    series = made([steps], 10)
    assert series.running.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert series.kv_share.tolist() == [0.4, 0, 0, 0, 0, 0, 0, 0, 0, 0.6]
    assert series.prefill_tokens.sum() == 100
    assert series.idle_share[2:8].tolist() == [1.0] * 6


def test_waiting_counts_the_queue_and_the_preempted():
    steps = [(0, 5, 5, 50, 1, 8)] * 4
    rows = history(steps)
    rows[1:3, 7] = 1
    nobody = {"prompt_tokens": np.array([7, 7, 7, 7]), "hit_tokens": np.zeros(4, dtype=np.int64)}
    series = made(
        [steps],
        10,
        samples=[rows],
        replica=np.array([0, 0, 0, -1]),
        arrival_ps=np.array([0, 5, 12, 3]),
        start_ps=np.array([0, 30, 15, -1]),  # the last one never starts: it was refused
        left_ps=np.array([40, 40, 40, -1]),
        **nobody,
    )
    assert series.running.tolist() == [1, 1, 1, 2]
    assert series.waiting.tolist() == [0, 1, 2, 1]
    assert series.arrivals.tolist() == [3, 1, 0, 0]
    assert series.answers.tolist() == [0, 0, 0, 3]
    assert series.started_tokens.tolist() == [7, 7, 0, 7]


def test_hits_belong_to_the_interval_of_their_start():
    series = made([[(0, 5, 5, 50, 1, 8), (10, 5, 5, 50, 1, 8)]], 10)
    assert series.started_tokens.tolist() == [10, 0, 10]
    assert series.hit_share[[0, 2]].tolist() == [0.4, 0.4]
    assert np.isnan(series.hit_share[1])


def test_a_run_without_requests_is_one_empty_interval():
    none = np.zeros(0, dtype=np.int64)
    series = series_of(
        [np.zeros((0, 8), dtype=np.int64)],
        np.zeros((1, 8), dtype=np.int64),
        resolution_ps=10,
        kv_blocks=5,
        replica=none,
        arrival_ps=none,
        start_ps=none,
        left_ps=none,
        prompt_tokens=none,
        hit_tokens=none,
    )
    assert len(series) == 1
    assert series.idle_share.tolist() == [1.0]


@pytest.mark.parametrize(("resolution_ps", "end_ps"), [(0, 10), (-1, 10), (1, MOST_INTERVALS + 1)])
def test_a_grid_that_cannot_be_is_refused(resolution_ps, end_ps):
    with pytest.raises(ValueError, match="resolution|intervals"):
        grid_ps(resolution_ps, end_ps)


def test_columns_of_different_length_are_refused():
    series = made([[(0, 5, 5, 50, 1, 8)]], 10)
    with pytest.raises(ValueError, match="running has 2 values for 1 intervals"):
        Series(**{name: getattr(series, name) for name in Series.__slots__} | {"running": np.zeros(2)})
