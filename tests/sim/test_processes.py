"""What only shows in processes of their own: where machine code is kept, and what an interrupt does."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numba
import pytest
from numba.core import caching

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


def copy_source(to: Path) -> None:
    """The package without the machine code that lies beside it."""
    installed = Path(trilemma.__file__).parent
    shutil.copytree(installed, to / "trilemma", ignore=shutil.ignore_patterns("__pycache__", "data"))


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
    copy_source(tmp_path)
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


TINY = """
from trilemma.sim.compiled import compiled, inner

@inner
def half(x):
    return x / 2

@compiled
def same(x):
    return half(x) * 2
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A module with a small compiled function; what is called loads it as a new process would: (result, compiled)."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")  # beside the source
    file = tmp_path / "tiny.py"
    file.write_text(TINY)

    def call(value) -> tuple[float, int]:
        spec = importlib.util.spec_from_file_location("tiny", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        result = module.same(value)
        assert sum(module.same.stats.cache_hits.values()) + sum(module.same.stats.cache_misses.values()) == 1
        return result, sum(module.same.stats.cache_misses.values())

    return call


def files(folder: Path, ending: str) -> list[Path]:
    found = sorted((folder / "__pycache__").glob(f"tiny.same*{ending}"))
    assert found
    return found


def test_code_is_kept_beside_the_source(tiny):
    assert [tiny(3), tiny(3), tiny(3.5), tiny(3.5), tiny(3)] == [(3, 1), (3, 0), (3.5, 1), (3.5, 0), (3, 0)]


@pytest.mark.parametrize("ending", [".nbi", ".nbc"])
@pytest.mark.parametrize("left", [0, 1, 0.5, 0.9])
def test_torn_files_are_made_anew(tiny, tmp_path, ending, left):
    """What a full disk or a machine that went down has left of a file: nothing, a byte, a part of it."""
    tiny(3)
    for file in files(tmp_path, ending):
        whole = file.read_bytes()
        file.write_bytes(whole[: left if isinstance(left, int) else int(len(whole) * left)])
    assert [tiny(3), tiny(3)] == [(3, 1), (3, 0)]


@pytest.mark.parametrize("ending", [".nbi", ".nbc"])
def test_folders_in_the_place_of_files_are_left_alone(tiny, tmp_path, ending):
    tiny(3)
    for file in files(tmp_path, ending):
        file.unlink()
        file.mkdir()
    assert [tiny(3), tiny(3)] == [(3, 1), (3, 1)]


def test_code_of_another_signature_is_not_used(tiny, tmp_path):
    """Two processes that write at once can leave the code of one under the entry of the other."""
    tiny(3)
    tiny(3.5)
    one, other = files(tmp_path, ".nbc")
    code = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(code)
    assert [tiny(3), tiny(3.5), tiny(3), tiny(3.5)] == [(3, 1), (3.5, 1), (3, 0), (3.5, 0)]


def test_code_in_a_folder_that_can_only_be_read_is_used(tiny, tmp_path, monkeypatch):
    """An image with kept code, run by somebody without rights and home: what is there is read, the rest compiled."""
    tiny(3)
    before = sorted((tmp_path / "__pycache__").iterdir())

    def denied(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", denied)
    assert [tiny(3), tiny(3.5), tiny(3.5)] == [(3, 0), (3.5, 1), (3.5, 1)]
    assert sorted((tmp_path / "__pycache__").iterdir()) == before


def test_code_that_came_with_the_source_is_used_beside_a_folder_of_one_s_own(tiny, tmp_path, monkeypatch):
    tiny(3)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "own"))
    assert [tiny(3), tiny(3.5), tiny(3.5)] == [(3, 0), (3.5, 1), (3.5, 0)]
    assert len(files(tmp_path, ".nbc")) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of resources")
@pytest.mark.parametrize("room", [0, 100])
def test_a_full_disk_is_no_reason_to_fail(tmp_path, room):
    """No file may grow beyond some bytes, as under a quota."""
    (tmp_path / "tiny.py").write_text(TINY)
    script = f"""
import resource, sys
import tiny
resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, resource.RLIM_INFINITY))
print(tiny.same(3), sum(tiny.same.stats.cache_misses.values()))
"""
    for _ in range(2):
        assert finish(start(script, PYTHONPATH=str(tmp_path), NUMBA_CACHE_DIR="")) == "3.0 1"
    assert not [file for file in (tmp_path / "__pycache__").iterdir() if ".tmp." in file.name]


@pytest.mark.slow
def test_processes_that_start_cold_at_once_do_not_disturb_each_other(tmp_path: Path):
    """Both compile everything (some 20 s of CPU each); what they leave behind is whole: a third compiles nothing."""
    copy_source(tmp_path)
    there = {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    wait = "print('ready', flush=True)\nsys.stdin.readline()\n"
    pair = [start(wait + LOAD, **there) for _ in range(2)]
    assert [process.stdout.readline() for process in pair] == ["ready\n"] * 2
    for process in pair:
        process.stdin.write("go\n")
        process.stdin.flush()
    times = [finish(process).rpartition(" ") for process in pair]
    assert {compiled for _, _, compiled in times} <= {"0", "1"}
    assert "1" in {compiled for _, _, compiled in times}
    third, _, compiled = finish(start(LOAD, **there)).rpartition(" ")
    assert compiled == "0"
    assert third == times[0][0] == times[1][0] == finish(start(LOAD)).rpartition(" ")[0]
    assert not [file for file in (tmp_path / "cache").rglob("*") if ".tmp." in file.name]


# Interrupts ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer of CPU time")
@pytest.mark.parametrize("threshold", [0, 1])
def test_an_interrupted_run_stops_within_a_second(threshold):
    """A prompt of a billion tokens, one a step, in either kernel: half a minute's work and more. After half a second of
    CPU comes what Ctrl-C sends.

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
