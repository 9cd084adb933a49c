"""What a simulation lets in: requests and step times inside what the kernels' integers hold, whichever kernel plays.

All times are picoseconds in 63 bits. The clock ends at layout.FAR = 2**62; a run that would go on is refused when it
gets there, since its requests would silently never be answered.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from trilemma.errors import UnsupportedError
from trilemma.latency.table import FRACTION_BITS, StepTable
from trilemma.sim import layout
from trilemma.sim.checks import LATEST_ARRIVAL_S
from trilemma.sim.engine import EngineLimits
from trilemma.units import PS_PER_S
from trilemma.workload.requests import Requests

IntArray = npt.NDArray[np.int64]
DAY_S = 86400
LONGEST_REQUEST = 2**31  # tokens; less what is held beyond them (see check_lengths)
LONGEST_STEP_PS = 10**16  # 10,000 s
MOST_STRETCH_PS = 2**61  # of steps taken at once: added to a clock of up to 2**62 they stay inside 63 bits
MOST_EXACT = 2**53  # whole numbers up to here are exact in floating point

# Columns of requests and what the kernels read them as; a kernel would be compiled anew for any other type.
_COLUMNS = {
    "arrival_s": np.float64,
    "prompt_tokens": np.int64,
    "output_tokens": np.int64,
    "block_offsets": np.int64,
    "block_ids": np.int64,
    "session": np.int64,
    "think_s": np.float64,
    "priority": np.int64,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Tokens, at most, of any request's answer, and of a `whole` request with the answer that its client asked for."""

    output: int
    whole: int


def plain(requests: Requests, *, lent: Collection[str] = ()) -> Requests:
    """The requests in columns of the kernels' types, which can be written; the same object where they are already.
    Columns that are `lent` the kernels do not see themselves: they may be read-only.

    ValueError for a column that is no row of numbers, or that would have to be rounded.
    """
    changed: dict[str, Any] = {}
    for name, kind in _COLUMNS.items():
        column = getattr(requests, name)
        if column is None:
            continue
        if not isinstance(column, np.ndarray) or column.ndim != 1:
            raise ValueError(f"{name}: expected an array of one dimension, found {np.ndim(column)}")
        flags = column.flags
        fits = flags.carray or (name in lent and flags.c_contiguous and flags.aligned)
        if column.dtype != kind or not fits:
            changed[name] = _converted(name, column, np.dtype(kind))
    return replace(requests, **changed) if changed else requests


def _converted(name: str, column: npt.NDArray[Any], kind: np.dtype[Any]) -> npt.NDArray[Any]:
    """(n,) a copy of another type. ValueError where a number would change."""
    if column.dtype == kind:
        return np.array(column)
    if column.dtype.kind not in "iuf":
        raise ValueError(f"{name}: expected {kind.name}, found {column.dtype.name}")
    with np.errstate(all="ignore"):
        converted = np.array(column, kind)
        if kind.kind == column.dtype.kind == "f":
            same = (converted == column) | np.isnan(column)
        elif kind.kind == "i" and column.dtype.kind in "iu":
            same = (converted < 0) == (column < 0)
        else:
            same = (np.abs(converted) <= MOST_EXACT) & (converted == column)
    if not same.all():
        first = int(np.argmin(same))
        raise ValueError(f"{name}: expected what {kind.name} holds exactly, found {column[first]} at {first}")
    return converted


def check_arrivals(requests: Requests, *, thinks: bool) -> None:
    """ValueError for an arrival before 0 or a think time without end, UnsupportedError for ones beyond the clock.

    `thinks`: think times count, which add up over a session.
    """
    if not len(requests):
        return
    if requests.arrival_s[0] < 0:
        raise ValueError(f"arrivals count from 0, found {requests.arrival_s[0]} s")
    last_s = float(requests.arrival_s[-1])
    if last_s > LATEST_ARRIVAL_S:
        raise UnsupportedError(
            f"the simulator's clock holds {LATEST_ARRIVAL_S / DAY_S:.0f} days, the last request arrives after "
            f"{last_s / DAY_S:,.0f}: cut a window out of the trace"
        )
    if thinks and requests.think_s is not None and requests.session is not None:
        if np.isinf(requests.think_s).any():
            raise ValueError("think_s: expected finite think times (NaN for none), found infinity")
        think_s = np.nan_to_num(requests.think_s)
        if last_s + think_s.sum() <= LATEST_ARRIVAL_S:
            return
        named = requests.session >= 0
        _, which = np.unique(requests.session[named], return_inverse=True)
        longest_s = float(np.bincount(which.reshape(-1), weights=think_s[named]).max(initial=0.0))
        if last_s + longest_s > LATEST_ARRIVAL_S:
            raise UnsupportedError(
                f"think_s: the simulator's clock holds {LATEST_ARRIVAL_S / DAY_S:.0f} days, found think times of a "
                f"session that add up to {longest_s / DAY_S:,.0f} days, arrivals up to {last_s / DAY_S:,.0f}"
            )


def check_lengths(prompt_tokens: IntArray, output_tokens: IntArray, limits: EngineLimits, *, span: int = 1) -> Lengths:
    """How long the requests are. UnsupportedError where positions in a sequence would leave 32 bits.

    A sequence holds whole KV blocks, and room for the `span` tokens of its next step.
    """
    output = int(output_tokens.max(initial=0))
    whole = int(prompt_tokens.max(initial=0)) + max(output, limits.max_new_tokens)
    most = LONGEST_REQUEST - span - 2 * limits.block_tokens
    if output and whole >= most:
        raise UnsupportedError(
            f"a request of up to {whole:,} tokens; the simulator holds fewer than {most:,}, 2^31 less two KV blocks"
        )
    return Lengths(output=output, whole=whole)


def check_table(table: StepTable, limits: EngineLimits) -> None:
    """ValueError for a table that is smaller than the limits."""
    if table.token_ps.size <= limits.max_num_batched_tokens or table.sequence_ps.size <= limits.max_num_seqs:
        raise ValueError(
            f"a table up to {table.token_ps.size - 1} tokens and {table.sequence_ps.size - 1} sequences "
            f"cannot price {limits}"
        )


def check_steps(table: StepTable, limits: EngineLimits, lengths: Lengths, *, span: int = 1, draft_ps: int = 0) -> int:
    """The longest that a step of these requests can take, ps. UnsupportedError where adding steps up could overflow.

    With `h` tokens in the longest sequence that the KV cache can hold, S sequences and B tokens a step:

    - contexts add up to at most S h; without sharing (no prefix cache) to the KV cache's tokens and one a sequence.
    - the pairs of a step's chunks, sum of q (2 s + q + 1) with q tokens after s, to at most 2 B (h + 1), because
      2 s + q + 1 <= 2 h + 1; their product with pair_fp is taken before it is shifted: below 2**62.
    - k <= LONGEST_STRETCH decode steps are taken at once, and no more than a sequence has tokens. Before memory cuts
      them short, the kernel adds up k a + s k (k - 1) / 2, with a the first step and s = S (context_ps + window_ps) at
      most, by which each is longer than the one before: at most MOST_STRETCH_PS.
    """
    seqs, tokens = limits.max_num_seqs, limits.max_num_batched_tokens
    capacity = limits.kv_blocks * limits.block_tokens
    held = min(lengths.whole, capacity) + span
    contexts = seqs * held if limits.prefix_caching else min(seqs * held, capacity + seqs * span)
    in_windows = min(contexts, seqs * table.window_tokens)
    by_context = table.context_ps * contexts + table.window_ps * in_windows + draft_ps
    by_sequences = table.longest_ps("decode_ps", seqs) + table.longest_ps("sequence_ps", seqs)
    floor = table.longest_ps("floor_ps", seqs)
    decode = max(floor, table.longest_ps("token_ps", seqs) + by_sequences + by_context)
    pairs = table.pair_fp * 2 * tokens * (held + 1)
    by_tokens = table.longest_ps("token_ps", tokens) + table.longest_ps("prefill_ps", tokens)
    longest = max(floor, by_tokens + by_sequences + by_context + (pairs >> FRACTION_BITS))
    if longest > LONGEST_STEP_PS or pairs >= 2**62:
        raise UnsupportedError(
            f"step times: the simulator holds steps of up to {LONGEST_STEP_PS / PS_PER_S:,.0f} s, found up to "
            f"{longest / PS_PER_S:,.0f} s for {seqs:,} sequences of up to {held - span:,} tokens, {tokens:,} a step"
        )
    steps = min(layout.LONGEST_STRETCH, lengths.output + 1, held)
    slope = seqs * (table.context_ps + table.window_ps)
    together = steps * decode + slope * (steps * (steps - 1) // 2)
    if together > MOST_STRETCH_PS:
        raise UnsupportedError(
            f"step times: the simulator adds up {steps:,} steps to at most {MOST_STRETCH_PS / PS_PER_S:,.0f} s, found "
            f"up to {together / PS_PER_S:,.0f} s for {seqs:,} sequences of up to {held - span:,} tokens"
        )
    return longest


def ran_out(last_ps: int) -> UnsupportedError:
    """For a run that the clock was too short for."""
    return UnsupportedError(
        f"the simulator's clock ends after {int(layout.FAR) / PS_PER_S / DAY_S:.0f} days, when the run was not over "
        f"(last step after {last_ps / PS_PER_S / DAY_S:.0f}): a window of the trace, less load or faster steps end it"
    )
