"""Statistics against slow oracles, closed forms and the published traces."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workload.tables import tables
from trilemma.errors import InputError
from trilemma.workload.arrivals import ClosedLoop
from trilemma.workload.kind import classify
from trilemma.workload.prefix import cached_tokens, prefix_reuse
from trilemma.workload.requests import Requests
from trilemma.workload.statistics import (
    index_of_dispersion,
    interarrival_cv,
    little_concurrency,
    peak_count,
    statistics,
)
from trilemma.workload.traces import read_trace

DATA = Path(__file__).parents[2] / "benchmarks" / "data"


def slow_cached_tokens(requests):
    """Walk through the requests with a set."""
    seen, cached = set(), []
    for i, prompt in enumerate(requests.prompt_tokens.tolist()):
        blocks = requests.block_ids[requests.block_offsets[i] : requests.block_offsets[i + 1]].tolist()
        run = 0
        while run < len(blocks) and blocks[run] in seen:
            run += 1
        cached.append(min(run * requests.block_tokens, prompt - 1))
        seen |= set(blocks)
    return cached


@given(tables(blocks=True))
def test_cached_tokens_equal_the_slow_walk(requests):
    assert cached_tokens(requests).tolist() == slow_cached_tokens(requests)


@given(tables(min_size=1, blocks=True))
def test_prefix_shares_are_shares(requests):
    reuse = prefix_reuse(requests)
    assert 0 <= reuse.hit_token_share < 1
    assert 0 <= reuse.requests_with_hit_share <= 1 - 1 / len(requests)


@given(tables(min_size=1, blocks=True))
def test_disjoint_blocks_never_hit(requests):
    own = np.arange(requests.block_ids.size)
    apart = Requests(
        arrival_s=requests.arrival_s,
        prompt_tokens=requests.prompt_tokens,
        output_tokens=requests.output_tokens,
        block_offsets=requests.block_offsets,
        block_ids=own,
        block_tokens=8,
    )
    assert prefix_reuse(apart).hit_token_share == 0
    assert prefix_reuse(apart).requests_with_hit_share == 0


@given(tables(min_size=1), st.sampled_from([0.25, 1.0, 3.0, 100.0]))
def test_the_peak_equals_the_slow_count(requests, window_s):
    times = requests.arrival_s
    assert peak_count(times, window_s) == max(int(((times >= t) & (times < t + window_s)).sum()) for t in times)


@given(tables(min_size=1))
def test_statistics_hold_together_on_any_table(requests):
    seen = statistics(requests)
    assert seen.requests == len(requests)
    assert seen.prompt.total == requests.prompt_tokens.sum()
    for lengths in (seen.prompt, seen.output):
        assert lengths.p50 <= lengths.p90 <= lengths.p95 <= lengths.p99 <= lengths.max
    if seen.mean_rate_per_s is None:
        assert requests.duration_s == 0
    else:
        assert seen.input_tokens_per_s == pytest.approx(seen.mean_rate_per_s * seen.prompt.mean)
    for row in seen.windows:
        assert (row.peak_rate_per_s is None) == (requests.duration_s < row.window_s)
    json.dumps(seen.as_dict(), allow_nan=False)
    assert all(isinstance(text, str) and text for row in seen.rows() for text in row)


@given(tables(min_size=3), st.sampled_from([2.0, 4.0]))
def test_burstiness_does_not_depend_on_the_rate(requests, factor):
    before, after = interarrival_cv(requests.arrival_s), interarrival_cv(requests.at_rate(factor).arrival_s)
    assert (before is None and after is None) or before == pytest.approx(after)


def test_constant_arrivals_have_no_burstiness_and_a_pair_of_waves_has():
    steady = np.arange(1, 1001) * 0.1
    assert interarrival_cv(steady) == pytest.approx(0, abs=1e-9)
    assert index_of_dispersion(steady, 1.0) < 0.05
    waves = np.sort(np.concatenate([np.linspace(20 * k, 20 * k + 1, 50) for k in range(20)]))
    assert index_of_dispersion(waves, 10.0) == pytest.approx(25.6, rel=0.1)


def test_azure_conversation_by_the_published_figures():
    # Splitwise (ISCA 2024): median prompt 1,020 tokens, median output 129.
    trace = read_trace("azure_2023_conv")
    seen = statistics(trace.requests)
    assert (seen.requests, seen.prompt.total, seen.output.total) == (19_366, 22_361_870, 4_088_665)
    assert (seen.prompt.p50, seen.output.p50) == (1020, 129)
    assert (seen.prompt.p99, seen.output.p99, seen.prompt.max, seen.output.max) == (4142, 601, 14_050, 1000)
    assert seen.duration_s == pytest.approx(3501.721937, abs=1e-9)
    assert seen.mean_rate_per_s == pytest.approx(5.5304, abs=1e-4)
    assert seen.prefix is None
    assert seen.kind.name == "latency-sensitive"


def test_azure_code_by_the_published_figures():
    # Splitwise (ISCA 2024): median prompt 1.5k tokens, median output 13; bursty.
    seen = statistics(read_trace(DATA / "azure_2023_code.csv.gz").requests)
    assert (seen.requests, seen.prompt.total, seen.output.total) == (8_819, 18_059_974, 245_896)
    assert (seen.prompt.p50, seen.output.p50) == (1469, 13)
    assert seen.interarrival_cv > 10


def test_mooncake_conversation_by_the_published_figures():
    # FAST 2025, table of traces: 12,031 requests, mean input 12,035, mean output 343; ISL ends in the 126k.
    trace = read_trace(DATA / "mooncake_conversation.jsonl.gz")
    seen = statistics(trace.requests)
    assert seen.requests == 12_031
    assert (round(seen.prompt.mean), round(seen.output.mean)) == (12_035, 343)
    assert (seen.prompt.max, int((trace.requests.output_tokens == 1).sum())) == (126_195, 72)
    assert seen.prefix.distinct_blocks == 182_790
    assert seen.prefix.hit_token_share == pytest.approx(0.3736, abs=1e-4)
    assert trace.requests.block_ids.size == 288_500


def table(arrival_s):
    ones = np.ones(len(arrival_s), dtype=np.int64)
    return Requests(arrival_s=np.array(arrival_s, dtype=float), prompt_tokens=ones, output_tokens=ones)


@pytest.mark.parametrize(
    ("requests", "hints", "name", "reason"),
    [
        (table([0, 1, 2]), {}, "latency-sensitive", "over time"),
        (table([0, 0, 0]), {}, "throughput-sensitive", "at once"),
        (table([0, 0, 0]), {"has_latency_limits": True, "has_deadline": True}, "latency-sensitive", "bound a latency"),
        (table([0, 1, 2]), {"has_deadline": True}, "throughput-sensitive", "deadline"),
        (table([0, 0]), {"closed_loop": ClosedLoop(concurrency=8)}, "throughput-sensitive", "8 closed-loop clients"),
        (table([0] * 100 + [1, 2]), {}, "throughput-sensitive", "in bulk: 100 of 102"),
        (table([0] * 99 + [1, 2]), {}, "latency-sensitive", "over time"),
        (table([0]), {}, "latency-sensitive", "over time"),
    ],
)
def test_the_kind_and_its_reason(requests, hints, name, reason):
    kind = classify(requests, **hints)
    assert kind.name == name
    assert reason in kind.reason


def test_what_does_not_exist_is_none():
    seen = statistics(table([0, 0]))
    assert seen.mean_rate_per_s is None
    assert seen.interarrival_cv is None
    assert seen.concurrency_at(2.0) is None
    assert {row.peak_rate_per_s for row in seen.windows} == {None}
    assert dict(seen.rows())["mean rate"] == "-"
    closed = statistics(table([0, 0]), closed_loop=ClosedLoop(concurrency=8))
    assert closed.concurrency_at(2.0) == 8.0
    assert dict(closed.rows())["closed-loop clients"] == "8"


def test_little():
    seen = statistics(table([0, 5, 10]))
    assert seen.concurrency_at(20.0) == little_concurrency(0.3, 20.0) == pytest.approx(6.0)
    assert math.isclose(seen.windows[0].peak_rate_per_s, 1.0)


def test_no_request_is_an_error():
    with pytest.raises(InputError, match="at least one request"):
        statistics(table([]))
