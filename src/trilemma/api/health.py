"""Whether the compiled simulator works here."""

import time

import numpy as np

from trilemma.latency.table import StepTable
from trilemma.sim.replica import EngineLimits, simulate
from trilemma.workload.requests import Requests


def compile_simulator() -> float:
    """Compile the simulator, or load it from the compiler's cache, and play three requests; seconds that took.

    Installing ends with this, so that the first plan does not wait for the compiler.
    """
    started_s = time.perf_counter()
    table = StepTable(
        token_ps=np.arange(1, 10, dtype=np.int64),
        prefill_ps=np.zeros(9, np.int64),
        decode_ps=np.zeros(5, np.int64),
        sequence_ps=np.zeros(5, np.int64),
        context_ps=1,
        pair_fp=1,
    )
    ones = np.ones(3, np.int64)
    run = simulate(
        Requests(arrival_s=np.zeros(3), prompt_tokens=ones, output_tokens=ones),
        table,
        EngineLimits(max_num_batched_tokens=8, max_num_seqs=4, block_tokens=4, kv_blocks=8),
    )
    if not run.timings.finished.all():
        raise RuntimeError("the simulator lost a request")
    return time.perf_counter() - started_s
