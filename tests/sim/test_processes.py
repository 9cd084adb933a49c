"""What only shows in processes of their own: where machine code is kept, and what an interrupt does."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import trilemma

TIMEOUT_S = 120

PREAMBLE = """
import sys, time
import numpy as np
from trilemma.latency.table import StepTable
from trilemma.sim import kernel
from trilemma.sim.engine import EngineLimits
from trilemma.sim.replica import simulate
from trilemma.workload.requests import Requests

def play(prompt, output, n=1, **limits):
    known = {"max_num_batched_tokens": 8, "max_num_seqs": 4, "block_tokens": 4, "kv_blocks": 9}
    limits = EngineLimits(**known | limits)
    none = np.zeros(9, np.int64)
    table = StepTable(token_ps=none + 10**9, prefill_ps=none, decode_ps=none, sequence_ps=none, context_ps=0, pair_fp=0)
    ones = np.ones(n, np.int64)
    requests = Requests(arrival_s=np.zeros(n), prompt_tokens=prompt * ones, output_tokens=output * ones)
    return simulate(requests, table, limits)
"""


def start(script: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def finish(process: subprocess.Popen, said: str = "") -> str:
    out, errors = process.communicate(said, timeout=TIMEOUT_S)
    assert process.returncode == 0, errors
    return out.strip()


# Machine code ----------------------------------------------------------------------------------------------------

# Four requests of 5 + 7 tokens in 9 blocks of 4: worked out by the oracle elsewhere, here only the same everywhere.
LOAD = """
print(play(5, 7, 4).timings.done_s.tolist(), sum(kernel.run.stats.cache_misses.values()))
"""


def test_compiled_functions_work_where_nothing_can_be_kept(tmp_path: Path):
    """Neither beside the source, where a file stands in the folder's place, nor in the user's cache, for the same
    reason: also root cannot write there. The whole room is imported; a small function of it is compiled and run."""
    installed = Path(trilemma.__file__).parent
    shutil.copytree(installed, tmp_path / "trilemma", ignore=shutil.ignore_patterns("__pycache__", "data"))
    (tmp_path / "trilemma" / "sim" / "__pycache__").touch()
    (tmp_path / "home").touch()
    nowhere = {name: str(tmp_path / "home" / name) for name in ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR")}
    script = """
import trilemma
from trilemma.sim import draws, explicit
print(trilemma.__file__)
print(kernel.run.stats.cache_path, draws.splitmix64.stats.cache_path)
print(draws.splitmix64(np.uint64(0)))
"""
    where, paths, drawn = finish(start(script, PYTHONPATH=str(tmp_path), **nowhere)).splitlines()
    assert where == str(tmp_path / "trilemma" / "__init__.py")
    assert paths == "None None"
    assert int(drawn) == 0xE220A8397B1DCDAF


@pytest.mark.slow
def test_processes_that_start_cold_at_once_do_not_disturb_each_other(tmp_path: Path):
    """Both compile everything (some 20 s of CPU each); what they leave behind is whole: a third compiles nothing."""
    cache = str(tmp_path / "cache")
    wait = "print('ready', flush=True)\nsys.stdin.readline()\n"
    pair = [start(wait + LOAD, NUMBA_CACHE_DIR=cache) for _ in range(2)]
    assert [process.stdout.readline() for process in pair] == ["ready\n"] * 2
    for process in pair:
        process.stdin.write("go\n")
        process.stdin.flush()
    times = [finish(process).rpartition(" ") for process in pair]
    assert {compiled for _, _, compiled in times} <= {"0", "1"}
    assert "1" in {compiled for _, _, compiled in times}
    third, _, compiled = finish(start(LOAD, NUMBA_CACHE_DIR=cache)).rpartition(" ")
    assert compiled == "0"
    assert third == times[0][0] == times[1][0] == finish(start(LOAD)).rpartition(" ")[0]
    assert not [file for file in Path(cache).rglob("*") if ".tmp." in file.name]


# Interrupts ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer of CPU time")
@pytest.mark.parametrize("threshold", [1])
def test_an_interrupted_run_stops_within_a_second(threshold):
    """A prompt of a billion tokens, one a step: a minute's work. After half a second of CPU comes what Ctrl-C sends.

    The signal's handler is Python's own for SIGINT; the time it takes to get there is CPU time."""
    script = f"""
import signal
limits = dict(max_num_batched_tokens=1, max_num_seqs=1, kv_blocks=2**30, long_prefill_token_threshold={threshold})
play(1, 1, **limits)
signal.signal(signal.SIGVTALRM, signal.default_int_handler)
began = time.process_time()
signal.setitimer(signal.ITIMER_VIRTUAL, 0.5)
try:
    play(2**30, 1, **limits)
finally:
    print(time.process_time() - began, flush=True)
"""
    process = start(script)
    out, errors = process.communicate(timeout=TIMEOUT_S)
    assert errors.endswith("KeyboardInterrupt\n"), errors
    assert process.returncode == -signal.SIGINT
    assert 0.4 < float(out) < 2.0
