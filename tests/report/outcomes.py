"""Made-up outcomes of runs, for files and pictures of them."""

import numpy as np
from hypothesis import strategies as st

from trilemma.metrics.outcomes import Outcomes
from trilemma.metrics.series import Series
from trilemma.metrics.timings import Timings

SPANS = st.sampled_from([0.0, 4e-7, 1e-6, 0.25, 1.0 / 3.0, 20.0])


@st.composite
def runs(draw, min_size=0, max_size=25):
    """Outcomes of some requests: finished, refused, lost at any moment, on up to three replicas."""
    n = draw(st.integers(min_size, max_size))
    columns = {name: [] for name in ("arrival", "start", "first", "done", "lost", "replica")}
    now = 0.0
    for _ in range(n):
        now += draw(SPANS)
        ends = [now]
        for _ in range(3):
            ends.append(ends[-1] + draw(SPANS))
        status = draw(st.sampled_from(["finished", "finished", "refused", "lost"]))
        reached = {"finished": 4, "refused": 1, "lost": draw(st.integers(1, 3))}[status]
        for name, end, at in zip(("arrival", "start", "first", "done"), ends, range(4), strict=True):
            columns[name].append(end if at < reached else np.nan)
        columns["lost"].append(ends[reached - 1] + draw(SPANS) if status == "lost" else np.nan)
        columns["replica"].append(draw(st.integers(-1 if status != "finished" else 0, 2)))
    return outcomes_of(**columns, sessions=draw(st.booleans()))


def outcomes_of(arrival, start, first, done, lost, replica, *, sessions=False):
    n = len(arrival)
    counts = np.arange(n, dtype=np.int64)
    return Outcomes(
        timings=Timings(
            arrival_s=np.array(arrival, dtype=np.float64),
            first_token_s=np.array(first, dtype=np.float64),
            done_s=np.array(done, dtype=np.float64),
            prompt_tokens=counts + 1,
            output_tokens=counts % 3 + 1,
            preemptions=counts % 2,
            recomputed_tokens=counts % 5,
        ),
        queued_s=np.array(start, dtype=np.float64) - np.array(arrival, dtype=np.float64),
        replica=np.array(replica, dtype=np.int64),
        hit_tokens=counts // 2,
        wait_reason=(counts % 5).astype(np.int8),
        lost_s=np.array(lost, dtype=np.float64),
        session=counts // 2 if sessions else None,
    )


def a_series(k=4, hits=True):
    steps = np.arange(k, dtype=np.float64)
    counts = np.arange(k, dtype=np.int64)
    return Series(
        resolution_s=10.0,
        time_s=10 * steps,
        length_s=np.where(steps < k - 1, 10.0, 2.5),
        running=steps,
        waiting=steps / 2,
        kv_share=steps / k,
        arrivals=counts,
        answers=counts,
        prefill_tokens=100 * steps,
        decode_tokens=10 * steps,
        prefill_share=steps / (2 * k),
        decode_share=steps / (3 * k),
        started_tokens=10 * counts,
        hit_tokens=3 * counts * hits,
    )
