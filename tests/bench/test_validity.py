import numpy as np
import pytest

from tests.bench.sending import table
from trilemma.bench.answer import Ending
from trilemma.bench.records import CLIENT_FAULT, Measured, Record
from trilemma.bench.sender import connect_error
from trilemma.bench.validity import validity

MS = 1_000_000


def run(late_ms, *, lag_ms=(0.0,), ttft_ms=50, why=""):
    records = tuple(
        Record(
            index=i, intended_ns=0, begun_ns=round(late * MS), sent_ns=round(late * MS),
            ending=Ending.FAILED if why else Ending.DONE, why=why,
        )
        for i, late in enumerate(late_ms)
    )  # fmt: skip
    for record in records:
        record.token_ns.extend([record.begun_ns + ttft_ms * MS, record.begun_ns + (ttft_ms + 10) * MS])
    return Measured(
        requests=table(len(records)), records=records, start_ns=0, ended_ns=10**9,
        lag_ns=np.array(lag_ms) * MS, cpu_share=0.1, connections=1,
    )  # fmt: skip


def test_a_client_that_keeps_up_is_valid():
    verdict = validity(run([1.0] * 200, lag_ms=[2.0] * 100))
    assert verdict.is_valid
    assert (verdict.sending_p50_s, verdict.sending_p99_s, verdict.lag_p99_s) == (1e-3, 1e-3, 2e-3)


def test_one_late_request_in_a_hundred_is_allowed_and_two_are_not():
    assert validity(run([0.0] * 199 + [80.0])).is_valid
    verdict = validity(run([0.0] * 190 + [80.0] * 10))
    assert not verdict.is_valid
    assert "sent requests 80 ms late at p99" in verdict.reasons[0]


def test_too_early_is_as_wrong_as_too_late():
    assert not validity(run([-8.0] * 100)).is_valid


def test_a_lagging_loop_stamps_tokens_late():
    assert "event loop" in validity(run([0.0], lag_ms=[9.0] * 10)).reasons[0]


def test_what_is_small_beside_the_server_is_allowed():
    assert not validity(run([8.0] * 10, ttft_ms=500)).is_valid
    assert validity(run([8.0] * 10, ttft_ms=900)).is_valid
    assert validity(run([8.0] * 10), allowed_s=0.01).is_valid


def test_a_client_without_ports_or_files_is_the_bottleneck():
    assert not validity(run([0.0], why=f"{CLIENT_FAULT} more ports")).is_valid
    assert validity(run([0.0], why="no connection: connection refused")).is_valid
    assert connect_error(OSError(24, "x")).startswith(CLIENT_FAULT)
    assert connect_error(ConnectionRefusedError(111, "x")) == "no connection: connection refused"


def test_the_histogram_of_gaps_is_that_of_the_chunks():
    counts = run([0.0] * 5).outcomes().timings
    assert counts.itl_counts.sum() == 5
    edge = np.flatnonzero(counts.itl_counts)[0]
    assert counts.itl_edges_s[edge] <= 0.01 <= counts.itl_edges_s[edge + 1]
    assert counts.itl_edges_s[edge + 1] / counts.itl_edges_s[edge] == pytest.approx(1.005, abs=1e-3)
