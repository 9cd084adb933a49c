"""The trace keeps the rules of the trace event format: keys by phase, order, nesting, one slice at a time on a lane."""

import json
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.report.outcomes import a_series, outcomes_of, runs
from trilemma.report.chrome_trace import ALL_REPLICAS, trace_events, write_chrome_trace

NEEDED = {
    "M": {"name", "pid", "tid", "args"},
    "X": {"name", "cat", "pid", "tid", "ts", "dur"},
    "C": {"name", "pid", "tid", "ts", "args"},
    "i": {"name", "s", "pid", "tid", "ts"},
}
METADATA = {"process_name": "name", "process_sort_index": "sort_index", "thread_name": "name",
            "thread_sort_index": "sort_index"}  # fmt: skip
PARTS = ["queued", "prefill", "decode"]


def checked(events):
    """The events, each with the keys of its phase and values of the right type."""
    for event in events:
        assert NEEDED[event["ph"]] <= set(event), event
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        for key in ("ts", "dur"):
            assert event.get(key, 0) >= 0
            assert isinstance(event.get(key, 0), int)
        if event["ph"] == "M":
            assert list(event["args"]) == [METADATA[event["name"]]]
        if event["ph"] == "C":
            assert all(isinstance(value, int | float) for value in event["args"].values())
        if event["ph"] == "i":
            assert event["s"] in {"g", "p", "t"}
    return events


def on_lanes(events):
    """Slices by (process, lane), in the order of the file."""
    lanes = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            lanes[event["pid"], event["tid"]].append(event)
    return lanes


@given(runs())
def test_every_event_has_the_keys_of_its_phase(run):
    checked(list(trace_events(run, a_series())))


@given(runs())
def test_slices_on_a_lane_nest_and_never_overlap(run):
    for slices in on_lanes(trace_events(run)).values():
        open_until, requests = [], []
        for event in slices:
            while open_until and open_until[-1] <= event["ts"] and event["name"] not in PARTS:
                open_until.pop()
            if event["name"] in PARTS:
                outer = requests[-1]
                assert outer["ts"] <= event["ts"]
                assert event["ts"] + event["dur"] <= outer["ts"] + outer["dur"]
            else:
                assert not open_until
                if requests:
                    assert event["ts"] >= requests[-1]["ts"] + requests[-1]["dur"]
                requests.append(event)
                open_until.append(event["ts"] + event["dur"])


@given(runs())
def test_the_parts_of_a_request_follow_each_other_and_fill_it(run):
    for slices in on_lanes(trace_events(run)).values():
        bounds = [i for i, event in enumerate(slices) if event["name"] not in PARTS] + [len(slices)]
        for low, high in zip(bounds[:-1], bounds[1:], strict=True):
            outer, parts = slices[low], slices[low + 1 : high]
            names = [part["name"] for part in parts]
            assert names == [name for name in PARTS if name in names]
            at = outer["ts"]
            for part in parts:
                assert part["ts"] == at
                assert part["dur"] > 0
                at += part["dur"]
            assert at == outer["ts"] + outer["dur"]


@given(runs())
def test_every_request_is_a_slice_or_a_refusal_once_in_its_replica(run):
    drawn = {}
    for event in trace_events(run):
        if event["ph"] in "Xi" and event["name"] not in PARTS:
            row = int(event["name"].rpartition(" ")[2])
            assert row not in drawn
            drawn[row] = event
    assert sorted(drawn) == list(range(len(run)))
    for row, event in drawn.items():
        assert event["pid"] == run.replica[row] + 1
        assert event["ts"] == round(1e6 * run.timings.arrival_s[row])
        assert (event["ph"] == "i") == (event["args"]["status"] == "refused")
        if event["args"]["status"] == "finished":
            assert event["ts"] + event["dur"] == pytest.approx(1e6 * run.timings.done_s[row], abs=1)


@given(runs())
def test_lanes_and_processes_have_names_and_no_more_lanes_than_needed(run):
    events = list(trace_events(run))
    named = {(e["pid"], e["tid"]) for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    lanes = on_lanes(events)
    assert set(lanes) == named
    processes = {e["pid"] for e in events if e["ph"] == "M" and e["name"] == "process_name"}
    assert {pid for pid, _ in lanes} <= processes
    for pid in {pid for pid, _ in lanes}:
        outer = [e for (p, _), slices in lanes.items() for e in slices if p == pid and e["name"] not in PARTS]
        most = max(sum(e["ts"] <= x["ts"] and (x["ts"] < e["ts"] + e["dur"] or e is x) for e in outer) for x in outer)
        assert len({tid for p, tid in lanes if p == pid}) <= most


@pytest.mark.parametrize("power", [None, np.array([100.0, 200.0, 300.0, 400.0])])
def test_counters_never_step_back_in_time_and_end_at_zero(power):
    nobody = outcomes_of(*([[]] * 6))
    tracks = defaultdict(list)
    for event in checked(list(trace_events(nobody, a_series(), power_w=power))):
        if event["ph"] == "C":
            assert event["pid"] == ALL_REPLICAS
            tracks[event["name"]].append(event)
    wanted = {"running", "waiting", "KV cache", "tokens/s", "busy", "prefix cache hits"} | (
        {"power"} if power is not None else set()
    )
    assert set(tracks) == wanted
    for events in tracks.values():
        times = [event["ts"] for event in events]
        assert times == sorted(times) == [0, 10_000_000, 20_000_000, 30_000_000, 32_500_000]
        assert len({tuple(event["args"]) for event in events}) == 1
        assert set(events[-1]["args"].values()) == {0}
    assert [event["args"]["requests"] for event in tracks["running"]] == [0, 1, 2, 3, 0]
    assert tracks["tokens/s"][3]["args"] == {"prefill": 120.0, "decode": 12.0}


def test_without_hits_there_is_no_counter_of_them():
    nobody = outcomes_of(*([[]] * 6))
    assert not [e for e in trace_events(nobody, a_series(hits=False)) if e["name"] == "prefix cache hits"]


def three():
    nan = np.nan
    return outcomes_of(
        arrival=[0.0, 0.1, 0.2], start=[0.0, 0.5, nan], first=[0.3, 0.9, nan], done=[1.0, 0.9, nan],
        lost=[nan, nan, nan], replica=[0, 0, -1],
    )  # fmt: skip


def test_a_worked_example():
    slices = [(e["name"], e["tid"], e["ts"], e["dur"]) for e in trace_events(three()) if e["ph"] == "X"]
    assert slices == [
        ("request 0", 1, 0, 1_000_000), ("prefill", 1, 0, 300_000), ("decode", 1, 300_000, 700_000),
        ("request 1", 2, 100_000, 800_000), ("queued", 2, 100_000, 400_000), ("prefill", 2, 500_000, 400_000),
    ]  # fmt: skip
    (refused,) = [e for e in trace_events(three()) if e["ph"] == "i"]
    assert (refused["name"], refused["ts"], refused["pid"]) == ("refused: request 2", 200_000, ALL_REPLICAS)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(run=runs(), most=st.integers(0, 30))
def test_the_file_is_json_and_says_what_it_left_out(tmp_path, run, most):
    path = tmp_path / "trace.json"
    write_chrome_trace(path, run, a_series(), where="f", most_requests=most, about={"scenario": "chat"})

    def refuse(constant):
        raise AssertionError(constant)

    document = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert document["traceEvents"] == list(trace_events(run, a_series(), most_requests=most))
    said = document["otherData"]
    assert said["scenario"] == "chat"
    assert (int(said["requests"]), int(said["requests_drawn"])) == (len(run), min(most, len(run)))
    assert ("note" in said) == (most < len(run))
    drawn = [e for e in document["traceEvents"] if e["ph"] in "Xi" and e["name"] not in PARTS]
    assert len(drawn) == min(most, len(run))
    latest = max((e["ts"] for e in drawn), default=0)
    assert (np.sort(run.timings.arrival_s)[: len(drawn)] * 1e6 <= latest + 1).all()


def test_an_interrupted_trace_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        yield {"ph": "M"}
        raise KeyboardInterrupt

    monkeypatch.setattr("trilemma.report.chrome_trace.trace_events", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_chrome_trace(tmp_path / "trace.json", three(), where="f")
    assert list(tmp_path.iterdir()) == []
