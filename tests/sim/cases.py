"""Random replicas small enough for the oracle, with every regime in them: idle, crowded, out of KV, closed loop."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from trilemma.latency.table import FRACTION_BITS, StepTable
from trilemma.sim.replica import EngineLimits, Run, simulate
from trilemma.units import PS_PER_S
from trilemma.workload.requests import Requests

PLENTY_OF_BLOCKS = 100_000


@dataclass(frozen=True)
class Case:
    requests: Requests
    table: StepTable
    limits: EngineLimits
    clients: int = 0

    def play(self, replicas: int = 1) -> Run:
        return simulate(self.requests, self.table, self.limits, replicas=replicas, clients=self.clients)


def table_of(rng: np.random.Generator, tokens: int, seqs: int) -> StepTable:
    """A table with no structure beyond more work never being faster."""
    prefill_ps = np.sort(rng.integers(0, 10**8, tokens + 1))
    prefill_ps[0] = 0
    return StepTable(
        token_ps=np.sort(rng.integers(1, 10**9, tokens + 1)),
        prefill_ps=prefill_ps,
        decode_ps=np.sort(rng.integers(0, 10**8, seqs + 1)),
        sequence_ps=np.sort(rng.integers(0, 10**8, seqs + 1)),
        context_fp=int(rng.integers(0, 10**7)),
        pair_fp=int(rng.integers(0, 10**6)),
    )


def constant_table(step_ps: int, tokens: int, seqs: int) -> StepTable:
    """Every step takes the same time."""
    return StepTable(
        token_ps=np.full(tokens + 1, step_ps, np.int64),
        prefill_ps=np.zeros(tokens + 1, np.int64),
        decode_ps=np.zeros(seqs + 1, np.int64),
        sequence_ps=np.zeros(seqs + 1, np.int64),
        context_fp=0,
        pair_fp=0,
    )


def build(
    rng: np.random.Generator,
    *,
    n: int,
    seqs: int,
    spare_tokens: int,
    page: int,
    blocks: int,
    gap_ps: int,
    longest_prompt: int,
    longest_output: int,
    clients: int,
) -> Case:
    limits = EngineLimits(
        max_num_batched_tokens=seqs + spare_tokens, max_num_seqs=seqs, block_tokens=page, kv_blocks=blocks
    )
    arrival_ps = np.zeros(n, np.int64) if clients else np.sort(rng.integers(0, n * gap_ps + 1, n))
    requests = Requests(
        arrival_s=arrival_ps / PS_PER_S,
        prompt_tokens=rng.integers(1, longest_prompt + 1, n),
        output_tokens=rng.integers(1, longest_output + 1, n),
    )
    return Case(requests, table_of(rng, limits.max_num_batched_tokens, seqs), limits, clients)


PAGES = (1, 3, 16)
GAPS_PS = (0, 10**7, 10**9, 10**11)  # from all at once to nearly idle
LONGEST_PROMPTS = (3, 30, 120)
LONGEST_OUTPUTS = (1, 10, 60)
CLIENTS = (0, 0, 1, 5)


def random_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    return build(
        rng,
        n=int(rng.integers(1, 41)),
        seqs=int(rng.integers(1, 13)),
        spare_tokens=int(rng.integers(0, 65)),
        page=int(rng.choice(PAGES)),
        blocks=int(rng.integers(2, 61)),
        gap_ps=int(rng.choice(GAPS_PS)),
        longest_prompt=int(rng.choice(LONGEST_PROMPTS)),
        longest_output=int(rng.choice(LONGEST_OUTPUTS)),
        clients=int(rng.choice(CLIENTS)),
    )


@st.composite
def cases(draw, clients=CLIENTS, fewest_blocks=2, most_blocks=60):
    return build(
        np.random.default_rng(draw(st.integers(0, 2**32 - 1))),
        n=draw(st.integers(1, 40)),
        seqs=draw(st.integers(1, 12)),
        spare_tokens=draw(st.integers(0, 64)),
        page=draw(st.sampled_from(PAGES)),
        blocks=draw(st.integers(fewest_blocks, most_blocks)),
        gap_ps=draw(st.sampled_from(GAPS_PS)),
        longest_prompt=draw(st.sampled_from(LONGEST_PROMPTS)),
        longest_output=draw(st.sampled_from(LONGEST_OUTPUTS)),
        clients=draw(st.sampled_from(clients)),
    )


def open_cases():
    return cases(clients=(0,))


def roomy_cases():
    """Open loop with memory for everyone: nothing is refused or preempted."""
    return cases(clients=(0,), fewest_blocks=PLENTY_OF_BLOCKS, most_blocks=PLENTY_OF_BLOCKS)


def whole(table: StepTable) -> StepTable:
    """The table with coefficients in whole picoseconds, so that nothing is rounded."""
    return StepTable(
        token_ps=table.token_ps,
        prefill_ps=table.prefill_ps,
        decode_ps=table.decode_ps,
        sequence_ps=table.sequence_ps,
        context_fp=table.context_fp >> FRACTION_BITS << FRACTION_BITS,
        pair_fp=table.pair_fp >> FRACTION_BITS << FRACTION_BITS,
    )


def in_ps(seconds: np.ndarray) -> np.ndarray:
    """Integer picoseconds again; -1 for NaN."""
    return np.where(np.isnan(seconds), -1, np.rint(np.nan_to_num(seconds) * PS_PER_S)).astype(np.int64)
