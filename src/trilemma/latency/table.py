"""Step time as integer tables: the form the simulator reads.

A step that computes p prefill tokens and n decodes, and lets k sequences sample, takes

    max(floor_ps[n + k'], token_ps[p + n] + prefill_ps[p] + decode_ps[n] + sequence_ps[k]
        + context_ps * c + window_ps * w + (pair_fp * A >> FRACTION_BITS))

picoseconds, with c the sum over decodes of (context + 1), w the sum over decodes of min(context + 1, window_tokens), A
the sum over prefill chunks of q (2 s + q + 1), q tokens after s, and n + k' the sequences scheduled. For a fixed set of
running sequences only c and w move: the step time is piecewise affine in the step index, and every coefficient that
acts on them is a whole number of picoseconds, so that sums over many steps are exact in closed form.
"""

from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral

import numpy as np
import numpy.typing as npt

FRACTION_BITS = 10
LONGEST_TERM_PS = 10**15  # 1,000 s, for an entry of a column; what steps may add up to is checked by sim/door.py
STEEPEST_SLOPE = 10**12  # a second per token
IntArray = npt.NDArray[np.int64]
COLUMNS = ("token_ps", "prefill_ps", "decode_ps", "sequence_ps", "floor_ps")
SLOPES = ("context_ps", "pair_fp", "window_tokens", "window_ps")


def _check_column(name: str, column: IntArray) -> None:
    """ValueError for anything but a row of int64 from 0 to LONGEST_TERM_PS."""
    if not isinstance(column, np.ndarray) or column.dtype != np.int64 or column.ndim != 1:
        found = f"{column.dtype} of shape {column.shape}" if isinstance(column, np.ndarray) else type(column).__name__
        raise ValueError(f"{name}: expected step times in a row of int64, found {found}")
    if column.size and column.min() < 0:
        raise ValueError(f"{name}: step time terms cannot be negative, found {column.min():,} ps")
    if column.size and column.max() > LONGEST_TERM_PS:
        raise ValueError(f"{name}: a step time term is at most {LONGEST_TERM_PS:,} ps, found {column.max():,} ps")


@dataclass(frozen=True, kw_only=True)
class StepTable:
    """token_ps and prefill_ps (max_num_batched_tokens + 1,), decode_ps, sequence_ps and floor_ps (max_num_seqs + 1,),
    int64 >= 0; context_ps and window_ps are ps per token, pair_fp ps per unit in 2**-FRACTION_BITS. floor_ps is the
    time the host needs for a step of so many scheduled sequences while the accelerator runs the one before; zeros
    where nothing overlaps (the default). window_tokens is 0 where no layer's work is capped by a window. token_ps must
    be positive from 1 token on, or the clock would stall. ValueError otherwise, and for other types, entries beyond
    LONGEST_TERM_PS or slopes beyond STEEPEST_SLOPE."""

    token_ps: IntArray
    prefill_ps: IntArray
    decode_ps: IntArray
    sequence_ps: IntArray
    context_ps: int
    pair_fp: int
    window_tokens: int = 0
    window_ps: int = 0
    floor_ps: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        for name in COLUMNS:
            _check_column(name, getattr(self, name))
        if self.token_ps.size < 2 or self.token_ps[1:].min() < 1:
            raise ValueError("token_ps: a step of at least one token needs a positive time")
        if self.prefill_ps.size != self.token_ps.size:
            raise ValueError("token_ps and prefill_ps must be equally long")
        if self.sequence_ps.size < 2 or self.decode_ps.size != self.sequence_ps.size:
            raise ValueError("decode_ps and sequence_ps must be equally long and reach one sequence")
        if not self.floor_ps.size:
            object.__setattr__(self, "floor_ps", np.zeros(self.sequence_ps.size, np.int64))
        if self.floor_ps.size != self.sequence_ps.size:
            raise ValueError("floor_ps and sequence_ps must be equally long")
        for name in SLOPES:
            slope = getattr(self, name)
            if not isinstance(slope, Integral) or isinstance(slope, bool):
                raise ValueError(f"{name}: step time terms are whole numbers, found {slope!r}")  # noqa: TRY004
            slope = int(slope)
            if not 0 <= slope <= STEEPEST_SLOPE:
                raise ValueError(f"{name} cannot be negative or beyond {STEEPEST_SLOPE:,}, found {slope:,}")
            object.__setattr__(self, name, slope)
        if (self.window_tokens == 0) != (self.window_ps == 0):
            raise ValueError("window_tokens and window_ps come together")

    @cached_property
    def least_step_ps(self) -> int:
        """The least that a step of any tokens takes."""
        return int(self.token_ps[1:].min())

    @cached_property
    def _longest_ps(self) -> dict[tuple[str, int], int]:
        return {}

    def longest_ps(self, column: str, last: int) -> int:
        """The longest entry of one of COLUMNS up to `last`; kept, as every run on the table asks."""
        if (column, last) not in self._longest_ps:
            self._longest_ps[column, last] = int(getattr(self, column)[: last + 1].max())
        return self._longest_ps[column, last]

    def step_ps(
        self,
        *,
        prefill_tokens: int,
        decodes: int,
        sampling: int,
        context_sum: int,
        pair_sum: int,
        window_sum: int = 0,
        scheduled: int | None = None,
    ) -> int:
        """One step's time, integer picoseconds: the plain form of what the kernels compute. `scheduled` sequences
        default to the sampling ones."""
        by_tokens = self.token_ps[prefill_tokens + decodes] + self.prefill_ps[prefill_tokens]
        by_sequences = self.decode_ps[decodes] + self.sequence_ps[sampling]
        by_context = self.context_ps * context_sum + self.window_ps * window_sum
        total = int(by_tokens + by_sequences) + by_context + ((self.pair_fp * pair_sum) >> FRACTION_BITS)
        return max(int(self.floor_ps[sampling if scheduled is None else scheduled]), total)
