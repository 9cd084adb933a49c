"""A run as a Chrome trace, which Perfetto and chrome://tracing open.

The JSON object form of the trace event format: a process for the whole deployment with the counters, one for each
replica, and in it lanes (threads) of requests. A request is one slice from its arrival to its last token, and inside it
one each while it queued, up to its first token, and while it decoded. Times are whole microseconds, so that slices nest
exactly in every viewer.
"""

import heapq
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trilemma.metrics.outcomes import STATUSES, WAIT_REASONS, Outcomes
from trilemma.metrics.series import Series
from trilemma.metrics.timings import FloatArray, IntArray
from trilemma.report.files import whole_file

Event = dict[str, Any]

MOST_REQUESTS: Final = 20_000  # drawn unless asked for more: viewers slow down with some hundred thousand slices
ALL_REPLICAS: Final = 0  # the process of the deployment; replica i is process i + 1


def write_chrome_trace(
    path: Path,
    outcomes: Outcomes,
    series: Series | None = None,
    *,
    where: str,
    power_w: FloatArray | None = None,
    most_requests: int = MOST_REQUESTS,
    about: Mapping[str, str] | None = None,
) -> None:
    """Writes the trace event by event, whole or not at all; `about` goes into its `otherData`.

    The first `most_requests` requests by arrival are drawn; counters are of all of them.
    """
    shown = min(most_requests, len(outcomes))
    said = dict(about or {}) | {"requests": str(len(outcomes)), "requests_drawn": str(shown)}
    if shown < len(outcomes):
        said["note"] = f"the first {shown:,} of {len(outcomes):,} requests by arrival are drawn; counters are of all"
    with whole_file(path, where=where) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(f'{{"displayTimeUnit": "ms", "otherData": {json.dumps(said)}, "traceEvents": [')
        for number, event in enumerate(trace_events(outcomes, series, power_w=power_w, most_requests=most_requests)):
            file.write((",\n" if number else "\n") + json.dumps(event, separators=(",", ":"), allow_nan=False))
        file.write("\n]}\n")


def trace_events(
    outcomes: Outcomes,
    series: Series | None = None,
    *,
    power_w: FloatArray | None = None,
    most_requests: int = MOST_REQUESTS,
) -> Iterator[Event]:
    """The events one by one: names, counters, then requests in order of arrival."""
    yield from _named_process(ALL_REPLICAS, "deployment")
    for replica in np.unique(outcomes.replica[outcomes.replica >= 0]).tolist():
        yield from _named_process(replica + 1, f"replica {replica}")
    if series is not None:
        yield from _counters(series, power_w)
    yield from _requests(outcomes, most_requests)


def _named_process(process: int, name: str) -> Iterator[Event]:
    yield {"ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": {"name": name}}
    yield {"ph": "M", "name": "process_sort_index", "pid": process, "tid": 0, "args": {"sort_index": process}}


def _counters(series: Series, power_w: FloatArray | None) -> Iterator[Event]:
    """A value at the beginning of each interval, and zeros where the run ends."""
    tracks: dict[str, dict[str, npt.NDArray[Any]]] = {
        "running": {"requests": series.running},
        "waiting": {"requests": series.waiting},
        "KV cache": {"percent": 100 * series.kv_share},
        "tokens/s": {"prefill": series.prefill_tokens_per_s, "decode": series.decode_tokens_per_s},
        "busy": {"prefill percent": 100 * series.prefill_share, "decode percent": 100 * series.decode_share},
    }
    if power_w is not None:
        tracks["power"] = {"W": power_w}
    if series.hit_tokens.any():
        tracks["prefix cache hits"] = {"percent": 100 * np.nan_to_num(series.hit_share)}
    times = _whole_us(series.time_s).tolist()
    end = int(_whole_us(series.time_s[-1:] + series.length_s[-1:])[0])
    for name, values in tracks.items():
        rows = zip(*(np.round(column.astype(np.float64), 4).tolist() for column in values.values()), strict=True)
        for ts, row in zip(times, rows, strict=True):
            args = dict(zip(values, row, strict=True))
            yield {"ph": "C", "name": name, "pid": ALL_REPLICAS, "tid": 0, "ts": ts, "args": args}
        yield {"ph": "C", "name": name, "pid": ALL_REPLICAS, "tid": 0, "ts": end, "args": dict.fromkeys(values, 0)}


def _requests(outcomes: Outcomes, most_requests: int) -> Iterator[Event]:
    timings = outcomes.timings
    drawn = np.argsort(timings.arrival_s, kind="stable")[:most_requests]
    # What never happened is NaN until here, and stands at the latest time known before it from here on.
    arrival = _whole_us(timings.arrival_s[drawn])
    left = np.where(timings.finished, timings.done_s, outcomes.lost_s)[drawn]
    end = np.maximum(arrival, _whole_us(np.where(np.isnan(left), timings.arrival_s[drawn], left)))
    start = _clipped(outcomes.start_s[drawn], arrival, end)
    first = _clipped(timings.first_token_s[drawn], start, end)
    lanes: dict[int, _Lanes] = {}
    places = np.maximum(outcomes.replica[drawn], -1) + 1
    times = zip(arrival.tolist(), start.tolist(), first.tolist(), end.tolist(), strict=True)
    for row, process, (came, begun, emitted, gone), args in zip(
        drawn.tolist(), places.tolist(), times, _about(outcomes, drawn), strict=True
    ):
        name = f"request {row}"
        if args["status"] == "refused":
            yield {"ph": "i", "s": "p", "name": f"refused: {name}", "pid": process, "tid": 0, "ts": came, "args": args}
            continue
        lane, is_new = lanes.setdefault(process, _Lanes()).take(came, gone)
        if is_new:
            yield {"ph": "M", "name": "thread_name", "pid": process, "tid": lane, "args": {"name": f"lane {lane}"}}
            yield {"ph": "M", "name": "thread_sort_index", "pid": process, "tid": lane, "args": {"sort_index": lane}}
        place = {"ph": "X", "pid": process, "tid": lane, "cat": "request"}
        yield place | {"name": name, "ts": came, "dur": gone - came, "args": args}
        for part, low, high in (("queued", came, begun), ("prefill", begun, emitted), ("decode", emitted, gone)):
            if high > low:
                yield place | {"name": part, "ts": low, "dur": high - low}


class _Lanes:
    """Hands out lanes on which nothing else runs, the lowest free one first; requests come in order of arrival."""

    def __init__(self) -> None:
        self._busy: list[tuple[int, int]] = []  # (until, lane)
        self._free: list[int] = []
        self._count = 0

    def take(self, since: int, until: int) -> tuple[int, bool]:
        """(lane, whether it is a new one) for a slice from `since` to `until`."""
        while self._busy and self._busy[0][0] <= since:
            heapq.heappush(self._free, heapq.heappop(self._busy)[1])
        is_new = not self._free
        self._count += is_new
        lane = self._count if is_new else heapq.heappop(self._free)
        heapq.heappush(self._busy, (until, lane))
        return lane, is_new


def _about(outcomes: Outcomes, drawn: npt.NDArray[np.intp]) -> Iterator[dict[str, Any]]:
    """What a viewer shows of each request that is clicked on."""
    timings = outcomes.timings
    columns = {
        "prompt_tokens": timings.prompt_tokens,
        "output_tokens": timings.output_tokens,
        "hit_tokens": outcomes.hit_tokens,
        "preemptions": timings.preemptions,
        "recomputed_tokens": timings.recomputed_tokens,
        "wait_reason": np.array(WAIT_REASONS)[outcomes.wait_reason],
        "status": np.array(STATUSES)[outcomes.status],
    }
    if outcomes.session is not None:
        columns["session"] = outcomes.session
    for values in zip(*(column[drawn].tolist() for column in columns.values()), strict=True):
        yield dict(zip(columns, values, strict=True))


def _whole_us(seconds: FloatArray) -> IntArray:
    return np.rint(1e6 * seconds).astype(np.int64)


def _clipped(seconds: FloatArray, low: IntArray, high: IntArray) -> IntArray:
    """Whole microseconds inside [low, high]; NaN at the upper end: what never began lasts no time before the end."""
    missing = np.isnan(seconds)
    clipped = np.clip(_whole_us(np.where(missing, 0.0, seconds)), low, high)
    return np.where(missing, high, clipped).astype(np.int64)
