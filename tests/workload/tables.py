"""Random tables of requests for the laws."""

import numpy as np
from hypothesis import strategies as st

from trilemma.workload.requests import Requests


@st.composite
def tables(draw, min_size=0, max_size=30, blocks=None):
    """A table of requests; `blocks` says whether it has block ids and sessions (None: sometimes)."""
    n = draw(st.integers(min_size, max_size))
    gaps = draw(st.lists(st.sampled_from([0.0, 0.25, 1.0, 7.5]), min_size=n, max_size=n))
    prompt = draw(st.lists(st.integers(1, 60), min_size=n, max_size=n))
    output = draw(st.lists(st.integers(1, 60), min_size=n, max_size=n))
    extra = {}
    if draw(st.booleans()) if blocks is None else blocks:
        ids = [draw(st.lists(st.integers(0, 6), max_size=-(-p // 8))) for p in prompt]
        extra = {
            "block_offsets": np.concatenate([[0], np.cumsum([len(row) for row in ids])]).astype(np.int64),
            "block_ids": np.array([each for row in ids for each in row], dtype=np.int64),
            "block_tokens": 8,
            "session": np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)), dtype=np.int64),
        }
    return Requests(
        arrival_s=np.cumsum(np.array(gaps, dtype=np.float64)),
        prompt_tokens=np.array(prompt, dtype=np.int64),
        output_tokens=np.array(output, dtype=np.int64),
        **extra,
    )


def rows_of(requests):
    """Each request as a plain tuple without its time: prompt, output, blocks, session."""
    n = len(requests)
    blocks = [()] * n
    if requests.block_offsets is not None:
        bounds = zip(requests.block_offsets[:-1], requests.block_offsets[1:], strict=True)
        blocks = [tuple(requests.block_ids[low:high].tolist()) for low, high in bounds]
    sessions = [None] * n if requests.session is None else requests.session.tolist()
    return list(zip(requests.prompt_tokens.tolist(), requests.output_tokens.tolist(), blocks, sessions, strict=True))


def same(a, b):
    """Whether two tables are equal to the bit."""
    return a.arrival_s.tobytes() == b.arrival_s.tobytes() and rows_of(a) == rows_of(b)
