"""How long a plan takes: the whole space of a 70B model on a recorded hour, its warm repeat, and a peer's command.

    .venv/bin/python benchmarks/planner.py [--json] [--repeats N] [--peer PATH]

The space: examples/chat-70b.yaml over 5 accelerators x 4 offers x 3 weight formats x 2 KV formats x TP 1 to 8 x PP 1, 2
x 3 engines x 3 token budgets x 2 seat bounds. Each plan runs in processes of its own (`trilemma plan`), from an empty
store; the warm repeat reads that store. `cpu_s` and `peak_rss_mb` cover the command and all its workers: the peak is
the largest sum of resident memory seen over them, sampled every 50 ms, shared pages counted in each.

The peer is `aiconfigurator cli default` (an environment of its own; its path in --peer or AICONFIGURATOR), on
Qwen3-32B-FP8 and Qwen3-235B-A22B-FP8 with 32 H200s, whose defaults compare prefill and decode together and apart on
mean lengths. Ours plans TensorRT-LLM on at most 32 H200s, together, for a recorded hour's requests with its tails.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "chat-70b.yaml"
SAMPLED_S = 0.05
MB = 1e6
SPACE: dict[str, Any] = {
    "accelerators": ["a100_sxm", "h100_sxm", "h200_sxm", "b200_sxm", "mi300x"],
    "offers": ["owned", "on-demand", "reserved-1y", "reserved-3y"],
    "precisions": ["bf16", "fp8", "int4"],
    "kv_precisions": ["bf16", "fp8"],
    "engines": ["vllm", "trtllm", "sglang"],
    "tensor_parallel": [1, 2, 4, 8],
    "pipeline_parallel": [1, 2],
    "max_num_batched_tokens": [512, 2048, 8192],
    "max_num_seqs": [256, 512],
}
PEER_MODELS = {"Qwen/Qwen3-32B-FP8": "Qwen/Qwen3-32B", "Qwen/Qwen3-235B-A22B-FP8": "Qwen/Qwen3-235B-A22B"}
GPUS, SYSTEM = 32, "h200_sxm"
ASKED: dict[str, Any] = {
    "version": 1,
    "workload": {"trace": "azure_2023_conv"},
    "limits": ["ttft p99 <= 1 s", "tpot p99 <= 30 ms"],
    "space": {
        "accelerators": [SYSTEM], "offers": ["on-demand"], "precisions": ["fp8"], "engines": ["trtllm"],
        "max_gpus": GPUS,
    },
    "as_of": "2026-11-01",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """A command with all its workers: seconds by the clock and of CPU, peak memory, what it printed."""

    wall_s: float
    cpu_s: float
    peak_rss_mb: float
    output: str


def took(command: list[str]) -> Took:
    """A command run to its end; RuntimeError with its last words where it fails. Python keeps bytecode, as it does
    unless told otherwise."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, text=True, env=environment)
        watched = Watched(process.pid)
        code = process.wait()
        wall_s = time.perf_counter() - started
        watched.stop()
        out.seek(0), err.seek(0)
        output, said = out.read(), err.read()
    if code:
        raise RuntimeError(f"{' '.join(command)}: exit {code}: {said[-500:]}")
    return Took(wall_s=wall_s, cpu_s=watched.cpu_s, peak_rss_mb=watched.peak_bytes / MB, output=output)


class Watched:
    """A process and all below it, looked at by a thread: the most resident memory, bytes, and the CPU seconds of each
    when it was last seen (workers of a server are nobody's children that `getrusage` counts)."""

    def __init__(self, pid: int) -> None:
        self.pid, self.peak_bytes, self.done = pid, 0, threading.Event()
        self._cpu: dict[int, float] = {}
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()

    def _look(self) -> None:
        while not self.done.wait(SAMPLED_S):
            seen = _tree(self.pid)
            self.peak_bytes = max(self.peak_bytes, sum(_resident(pid) for pid in seen))
            for pid in seen:
                self._cpu[pid] = max(self._cpu.get(pid, 0.0), _cpu_s(pid))

    @property
    def cpu_s(self) -> float:
        return sum(self._cpu.values())

    def stop(self) -> None:
        self.done.set()
        self.thread.join()


def _tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for parent in found:
        try:
            for children in Path(f"/proc/{parent}/task").glob("*/children"):
                found += map(int, children.read_text().split())
        except OSError:  # gone meanwhile
            continue
    return found


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def plan(scenario: Path, store: Path) -> Took:
    """`trilemma plan` of a scenario with a store."""
    trilemma = str(Path(sys.executable).with_name("trilemma"))
    return took([trilemma, "plan", str(scenario), "--store", str(store), "-o", "json"])


def ours(folder: Path, repeats: int) -> dict[str, Any]:
    """The median run by wall time of `repeats` cold plans, each with a warm repeat."""
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(EXAMPLE.read_text()) | {"space": SPACE}))
    runs = []
    for i in range(repeats):
        store = folder / f"runs-{i}.db"
        runs.append((plan(path, store), plan(path, store)))
    runs.sort(key=lambda pair: pair[0].wall_s)
    cold, warm = runs[len(runs) // 2]
    answer = json.loads(cold.output)
    if json.loads(warm.output)["chosen"] != answer["chosen"]:
        raise RuntimeError("the warm repeat gives another answer")
    counts = answer["counts"]
    return {
        "candidates": counts["candidates"],
        "simulated": counts["sized"],
        "wall_s": cold.wall_s,
        "cpu_s": cold.cpu_s,
        "peak_rss_mb": cold.peak_rss_mb,
        "warm_wall_s": warm.wall_s,
        "shapes": counts["shapes"],
        "looked_at": counts["simulated"],
        "simulations": counts["simulations"],
        "wall_s_of_all": [cold.wall_s for cold, _ in runs],
        "chosen": answer["chosen"]["label"],
    }


def peers(folder: Path, command: str) -> dict[str, dict[str, float]]:
    """CPU seconds of the peer and of ours for each of PEER_MODELS."""
    found = {}
    for name, model in PEER_MODELS.items():
        theirs = took([command, "cli", "default", "--model-path", name, "--total-gpus", f"{GPUS}", "--system", SYSTEM])
        path = folder / f"{model.rpartition('/')[2]}.yaml"
        path.write_text(yaml.safe_dump(ASKED | {"model": model, "name": "peer"}))
        own = plan(path, folder / "peer.db")
        counts = json.loads(own.output)["counts"]
        found[name] = {
            "cpu_s": theirs.cpu_s, "ours_cpu_s": own.cpu_s, "ratio": theirs.cpu_s / own.cpu_s,
            "wall_s": theirs.wall_s, "ours_wall_s": own.wall_s, "ours_simulations": counts["simulations"],
        }  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--repeats", type=int, default=3, help="cold plans, of which the median counts")
    parser.add_argument("--peer", default=os.environ.get("AICONFIGURATOR"), help="path of the peer's command")
    asked = parser.parse_args()
    command = asked.peer or shutil.which("aiconfigurator")
    with tempfile.TemporaryDirectory() as folder:
        found = ours(Path(folder), asked.repeats)
        found["peer"] = peers(Path(folder), command) if command else None
    if asked.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:16} {value}")


if __name__ == "__main__":
    main()
