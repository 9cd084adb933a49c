"""Step time as integer tables: the form the simulator reads.

A step that computes p prefill tokens and n decodes, and lets k sequences sample, takes

    token_ps[p + n] + prefill_ps[p] + decode_ps[n] + sequence_ps[k] + (context_fp * c + pair_fp * A) >> FRACTION_BITS

picoseconds, with c the sum over decodes of (context + 1) and A the sum over prefill chunks of q (2 s + q + 1), q tokens
after s. For a fixed set of running sequences only c moves, by n a step: piecewise affine in the step index, which the
simulator's skipping rests on.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FRACTION_BITS = 10
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTable:
    """token_ps and prefill_ps (max_num_batched_tokens + 1,), decode_ps and sequence_ps (max_num_seqs + 1,), int64 >= 0;
    context_fp and pair_fp are ps per unit in 2**-FRACTION_BITS. token_ps must be positive from 1 token on, or the
    clock would stall; ValueError otherwise."""

    token_ps: IntArray
    prefill_ps: IntArray
    decode_ps: IntArray
    sequence_ps: IntArray
    context_fp: int
    pair_fp: int

    def __post_init__(self) -> None:
        if self.token_ps.size < 2 or (self.token_ps[1:] < 1).any():
            raise ValueError("a step of at least one token needs a positive time")
        if self.prefill_ps.size != self.token_ps.size:
            raise ValueError("token_ps and prefill_ps must be equally long")
        if self.sequence_ps.size < 2 or self.decode_ps.size != self.sequence_ps.size:
            raise ValueError("decode_ps and sequence_ps must be equally long and reach one sequence")
        terms = (self.prefill_ps, self.decode_ps, self.sequence_ps)
        if any((term < 0).any() for term in terms) or self.context_fp < 0 or self.pair_fp < 0:
            raise ValueError("step time terms cannot be negative")

    def step_ps(self, *, prefill_tokens: int, decodes: int, sampling: int, context_sum: int, pair_sum: int) -> int:
        """One step's time, integer picoseconds: the plain form of what the kernel computes."""
        by_tokens = self.token_ps[prefill_tokens + decodes] + self.prefill_ps[prefill_tokens]
        by_sequences = self.decode_ps[decodes] + self.sequence_ps[sampling]
        return int(by_tokens + by_sequences) + (
            (self.context_fp * context_sum + self.pair_fp * pair_sum) >> FRACTION_BITS
        )
