"""The samples a replica takes along the way, and the requests' own times, as a series on a common grid.

A replica's counters are known at the first step end at or after each multiple of the resolution. Between two samples
work is taken to be spread evenly over the busy time and the busy time to come first: exact while steps follow each
other, and where a replica fell idle off by no more than the work of one interval and one step. Sums over the whole run
are exact. How many requests run and wait is counted from the requests themselves, at the multiples.
"""

from collections.abc import Sequence

import numpy as np

from trilemma.metrics.series import Series
from trilemma.metrics.timings import FloatArray, IntArray

# Columns of a replica's samples (k, 8).
(TIME_PS, RUNNING, USED_BLOCKS, PREFILL_TOKENS, DECODE_TOKENS, PREFILL_PS, DECODE_PS, PREEMPTED) = range(8)
COLUMNS = 8
MOST_INTERVALS = 1_000_000


def grid_ps(resolution_ps: int, end_ps: int) -> IntArray:
    """(k,) the multiples of the resolution up to the end of the run, not included; at least time 0.

    ValueError for a resolution below 1 ps and for more than MOST_INTERVALS intervals.

    >>> grid_ps(10, 25).tolist(), grid_ps(10, 20).tolist(), grid_ps(10, 0).tolist()
    ([0, 10, 20], [0, 10], [0])
    """
    if resolution_ps < 1:
        raise ValueError(f"a resolution must be positive, found {resolution_ps} ps")
    count = max(1, -(-end_ps // resolution_ps))
    if count > MOST_INTERVALS:
        raise ValueError(f"{count:,} intervals of {resolution_ps} ps, at most {MOST_INTERVALS:,} are kept")
    return np.arange(count, dtype=np.int64) * resolution_ps


def series_of(
    samples: Sequence[IntArray],
    ends: IntArray,
    *,
    resolution_ps: int,
    kv_blocks: int,
    replica: IntArray,
    arrival_ps: IntArray,
    start_ps: IntArray,
    left_ps: IntArray,
    prompt_tokens: IntArray,
    hit_tokens: IntArray,
) -> Series:
    """The series of a run.

    `samples` holds per replica (k_i, 8) rows in order of time, columns as above, and `ends` (replicas, 8) what each
    replica's row was at its last step end. Per request (n,): the replica it ran on, and when it came, was first
    scheduled and left (answered, or lost with its replica), -1 for never; a request that never started is not waiting.
    """
    end_ps = int(max(ends[:, TIME_PS].max(initial=0), left_ps.max(initial=0)))
    grid = grid_ps(resolution_ps, end_ps)
    edges = np.append(grid, max(end_ps, 1))
    length_s = np.diff(edges) / 1e12
    work = np.zeros((grid.size + 1, 4))
    used = np.zeros(grid.size)
    preempted = np.zeros(grid.size)
    inside = _inside(grid, replica, start_ps, left_ps, len(samples))
    for rows, end, present in zip(samples, ends, inside, strict=True):
        known = np.vstack([rows, end[None, :]])
        work += _spread(np.vstack([np.zeros((1, COLUMNS), dtype=np.int64), known]), edges)
        next_row = np.minimum(np.searchsorted(known[:, TIME_PS], grid, side="left"), known.shape[0] - 1)
        used += np.where(present > 0, known[next_row, USED_BLOCKS], 0)
        preempted += np.minimum(known[next_row, PREEMPTED], present)
    begun = np.flatnonzero(start_ps >= 0)
    order = begun[np.argsort(start_ps[begun], kind="stable")]
    in_interval = np.searchsorted(start_ps[order], edges)
    arrived = np.searchsorted(np.sort(arrival_ps[begun]), grid, side="right")
    started = np.searchsorted(start_ps[order], grid, side="right")
    replicas_s = len(samples) * length_s
    parts = np.diff(work, axis=0)
    return Series(
        resolution_s=resolution_ps / 1e12,
        time_s=grid / 1e12,
        length_s=length_s,
        running=inside.sum(axis=0) - preempted,
        waiting=arrived - started + preempted,
        kv_share=used / (kv_blocks * len(samples)),
        arrivals=_counted(arrival_ps, edges),
        answers=_counted(left_ps, edges),
        prefill_tokens=parts[:, 0],
        decode_tokens=parts[:, 1],
        prefill_share=parts[:, 2] / 1e12 / replicas_s,
        decode_share=parts[:, 3] / 1e12 / replicas_s,
        started_tokens=_between(prompt_tokens[order], in_interval),
        hit_tokens=_between(hit_tokens[order], in_interval),
    )


def _spread(known: IntArray, edges: IntArray) -> FloatArray:
    """(rows, 8) ordered -> (edges, 4) prefill tokens, decode tokens, prefill_ps and decode_ps done up to each edge."""
    times = known[:, TIME_PS].astype(np.float64)
    counters = known[:, PREFILL_TOKENS : DECODE_PS + 1].astype(np.float64)
    busy = np.diff(counters[:, 2] + counters[:, 3])
    # Each gap has two knots: where its busy time ends, the gap's work done, and where it ends itself.
    turns = np.empty(2 * times.size - 1)
    turns[0::2], turns[1::2] = times, np.minimum(times[:-1] + busy, times[1:])
    done = np.repeat(counters, 2, axis=0)[1:]
    return np.stack([np.interp(edges, turns, done[:, column]) for column in range(4)], axis=1)


def _inside(grid: IntArray, replica: IntArray, start_ps: IntArray, left_ps: IntArray, replicas: int) -> IntArray:
    """(replicas, k) requests that have started on a replica and not left it, at each time of the grid."""
    begun = start_ps >= 0
    inside = np.zeros((replicas, grid.size + 1), dtype=np.int64)
    # An event counts from the first time of the grid that is not before it.
    for times, where, sign in ((start_ps, begun, 1), (left_ps, begun & (left_ps >= 0), -1)):
        cell = np.searchsorted(grid, times[where], side="left")
        np.add.at(inside, (replica[where], cell), sign)
    return np.cumsum(inside, axis=1)[:, :-1]


def _counted(times: IntArray, edges: IntArray) -> IntArray:
    """(n,), (k + 1,) -> (k,) times in each interval [edge, next edge), the end of the run in the last; -1 is never."""
    happened = times[times >= 0]
    where = np.minimum(np.searchsorted(edges, happened, side="right") - 1, edges.size - 2)
    return np.bincount(where, minlength=edges.size - 1).astype(np.int64)


def _between(values: IntArray, bounds: IntArray) -> IntArray:
    """(n,), (k + 1,) positions -> (k,) sums from each position to the next."""
    total = np.concatenate([[0], np.cumsum(values)])
    sums: IntArray = np.diff(total[bounds])
    return sums
