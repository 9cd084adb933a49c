"""What only shows in processes of their own: where machine code is kept, and what an interrupt does."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core import caching

import trilemma
from trilemma.sim import kept

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
print(play(5, 7, 4).timings.done_s.tolist(), kernel.run.compiled)
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
from trilemma.sim import blocks, draws, explicit
print(trilemma.__file__)
print(draws.splitmix64.stats.cache_path, draws.splitmix64(np.uint64(0)))
nodes = blocks.new_nodes(7)
print(blocks.clear.compiled, nodes[1].max())
"""
    where, drawn, cleared = finish(start(script, PYTHONPATH=str(tmp_path), **nowhere)).splitlines()
    assert where == str(tmp_path / "trilemma" / "__init__.py")
    assert drawn == f"None {0xE220A8397B1DCDAF}"
    assert cleared == "1 7"


TINY = """
from trilemma.sim.compiled import compiled, entry, inner

@inner
def half(x):
    return x / 2

@compiled
def same(x):
    return half(x) * 2

@entry
def own(x):
    return half(x) * 2
"""
KINDS = ("same", "own")  # kept by numba; kept as bare machine code
CODE = [("same", ".nbc"), ("own", ".code")]
ENDINGS = [("same", ".nbi"), *CODE]


def times_compiled(function) -> int:
    """How often a function was compiled in this process, since it was made."""
    if hasattr(function, "loaded"):
        return function.compiled
    stats = function.stats
    assert sum(stats.cache_hits.values()) + sum(stats.cache_misses.values()) == 1
    return sum(stats.cache_misses.values())


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A module with small compiled functions; what is called loads it as a new process would: (result, compiled)."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")  # beside the source
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    file = tmp_path / "tiny.py"
    file.write_text(TINY)

    def call(name: str, value) -> tuple[float, int]:
        spec = importlib.util.spec_from_file_location("tiny", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        function = getattr(module, name)
        return function(value), times_compiled(function)

    return call


def files(folder: Path, name: str, ending: str) -> list[Path]:
    found = sorted((folder / "__pycache__").glob(f"tiny.{name}*{ending}"))
    assert found
    return found


@pytest.mark.parametrize("name", KINDS)
def test_code_is_kept_beside_the_source(tiny, name):
    found = [tiny(name, value) for value in (3, 3, 3.5, 3.5, 3)]
    assert found == [(3, 1), (3, 0), (3.5, 1), (3.5, 0), (3, 0)]


@pytest.mark.parametrize(("name", "ending"), ENDINGS)
@pytest.mark.parametrize("left", [0, 1, 0.5, 0.9])
def test_torn_files_are_made_anew(tiny, tmp_path, name, ending, left):
    """What a full disk or a machine that went down has left of a file: nothing, a byte, a part of it."""
    tiny(name, 3)
    for file in files(tmp_path, name, ending):
        whole = file.read_bytes()
        file.write_bytes(whole[: left if isinstance(left, int) else int(len(whole) * left)])
    assert [tiny(name, 3), tiny(name, 3)] == [(3, 1), (3, 0)]


@pytest.mark.parametrize(("name", "ending"), ENDINGS)
def test_folders_in_the_place_of_files_are_left_alone(tiny, tmp_path, monkeypatch, name, ending):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nowhere"))
    (tmp_path / "nowhere").touch()
    tiny(name, 3)
    for file in files(tmp_path, name, ending):
        file.unlink()
        file.mkdir()
    assert [tiny(name, 3), tiny(name, 3)] == [(3, 1), (3, 1)]


@pytest.mark.parametrize(("name", "ending"), CODE)
def test_code_of_another_signature_is_not_used(tiny, tmp_path, name, ending):
    """Two processes that write at once can leave the code of one under the entry of the other."""
    tiny(name, 3)
    tiny(name, 3.5)
    one, other = files(tmp_path, name, ending)
    code = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(code)
    found = [tiny(name, value) for value in (3, 3.5, 3, 3.5)]
    assert found == [(3, 1), (3.5, 1), (3, 0), (3.5, 0)]


@pytest.mark.parametrize("name", KINDS)
def test_code_in_a_folder_that_can_only_be_read_is_used(tiny, tmp_path, monkeypatch, name):
    """An image with kept code, run by somebody without rights and home: what is there is read, the rest compiled."""
    tiny(name, 3)
    before = sorted((tmp_path / "__pycache__").iterdir())

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", denied)
    monkeypatch.setattr(kept, "_write", denied)
    assert [tiny(name, value) for value in (3, 3.5, 3.5)] == [(3, 0), (3.5, 1), (3.5, 1)]
    assert sorted((tmp_path / "__pycache__").iterdir()) == before


@pytest.mark.parametrize(("name", "ending"), CODE)
def test_code_that_came_with_the_source_is_used_beside_a_folder_of_one_s_own(tiny, tmp_path, monkeypatch, name, ending):
    tiny(name, 3)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "own"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "own"))
    assert [tiny(name, value) for value in (3, 3.5, 3.5)] == [(3, 0), (3.5, 1), (3.5, 0)]
    assert len(files(tmp_path, name, ending)) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of resources")
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("room", [0, 100])
def test_a_full_disk_is_no_reason_to_fail(tmp_path, room, name):
    """No file may grow beyond some bytes, as under a quota."""
    (tmp_path / "tiny.py").write_text(TINY)
    script = f"""
import resource, sys
import tiny
from tests.sim.test_processes import times_compiled
resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, resource.RLIM_INFINITY))
print(tiny.{name}(3), times_compiled(tiny.{name}))
"""
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    for _ in range(2):
        said = finish(start(script, PYTHONPATH=paths, NUMBA_CACHE_DIR="", XDG_CACHE_HOME=str(tmp_path / "cache")))
        assert said == "3.0 1"
    assert not [file for file in tmp_path.rglob("*") if ".tmp." in file.name]


@pytest.mark.parametrize("value", ["3", None, np.float32(3), np.array(3.0)])
def test_arguments_of_other_kinds_are_refused(tiny, value):
    with pytest.raises(TypeError, match=f"expected numbers, arrays or tuples of them, found {type(value).__name__}"):
        tiny("own", value)


def test_kept_arrays_are_those_that_were_made(tmp_path):
    source, made = tmp_path / "source.py", []

    def kept_array(digest: str) -> np.ndarray:
        def make() -> np.ndarray:
            made.append(digest)
            return np.arange(6.0).reshape(2, 3) / 7

        return kept.kept_array(source, "x", digest, make, shape=(2, 3))

    first, again = kept_array("one"), kept_array("one")
    assert made == ["one"]
    assert first.tobytes() == again.tobytes()
    assert not again.flags.writeable
    (tmp_path / "__pycache__" / "x-one.npy").write_bytes(b"torn")
    assert kept_array("one").tobytes() == kept_array("other").tobytes() == first.tobytes()
    assert made == ["one", "one", "other"]
    assert [file.name for file in (tmp_path / "__pycache__").iterdir()] == ["x-other.npy"]


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
