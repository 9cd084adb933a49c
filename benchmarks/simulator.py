"""Requests a second that the simulator plays on one core, and what it takes beside time.

    python benchmarks/simulator.py [--json] [--case NAME]... [--requests N] [--traces FOLDER] [--list]

Load is arrival rate over saturation rate, the rate at which the same requests are answered where the queue never ends
(the middle half of the answers of a burst). "Saturation" in a case's name is load 0.95. Every case is played once to
warm up and then five times; the least CPU time of the process counts, for all of `simulate()`: setting up, playing,
putting the results together. `bytes_per_request` is the peak of what `simulate()` allocates (tracemalloc; the results
are part of it, the table of requests is not). `output_x10_time_ratio` is CPU time with ten times longer answers over
that without, both at load 0.95 of their own saturation and with KV memory for every seat's sequence, so that only the
lengths differ; `output_x10_time_ratio_short_of_memory` is the same with the 25,600 blocks of the synthetic case, where
ten times longer answers do not fit: `output_x10_preemptions` is how often a request is then thrown out on average, and
each time it is admitted anew. `two_process_speedup` is the wall time one process takes for
the synthetic case, times two, over the wall time of two processes that play it at the same time.

`preemption` halves the prompts of the synthetic case, so that memory fills with answers while they are written, leaves
out requests of 8,192 tokens and more, and has little KV memory: a quarter of the requests are thrown out of it.

`explicit@saturation` is a compiled loop over single steps and `oracle@saturation` the plain Python simulator of the
tests, on the synthetic case with fewer requests.

The traces are the shipped ones and those in FOLDER: azure_2023_conv.csv, azure_2023_code.csv,
mooncake_conversation.jsonl. Cases of a trace that is not there are left out, with a line on stderr.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for the oracle, which belongs to the tests

from trilemma.catalogue.catalogue import load_catalogue  # noqa: E402
from trilemma.catalogue.efficiency import efficiency_for  # noqa: E402
from trilemma.deployment.spec import Deployment, Parallelism, SchedulerKnobs  # noqa: E402
from trilemma.latency.step import StepModel  # noqa: E402
from trilemma.latency.table import StepTable  # noqa: E402
from trilemma.sim.explicit import play_explicit  # noqa: E402
from trilemma.sim.fleet import Fleet, Routing  # noqa: E402
from trilemma.sim.replica import EngineLimits, simulate  # noqa: E402
from trilemma.sim.speculation import Speculation  # noqa: E402
from trilemma.units import PS_PER_S  # noqa: E402
from trilemma.workload.requests import Requests  # noqa: E402
from trilemma.workload.traces import SHIPPED, read_trace  # noqa: E402
from trilemma.workload.transform import tile  # noqa: E402

BUDGET, SEATS, BLOCK_TOKENS, BLOCKS = 8192, 256, 16, 25_600
SATURATION = 0.95
RUNS = 5
REQUESTS, BURST = 1_000_000, 100_000
P95 = 1.6448536269514722  # standard deviations
TRACE_FILES = {
    "mooncake": "mooncake_conversation.jsonl",
    "azure_conv": "azure_2023_conv.csv",
    "azure_code": "azure_2023_code.csv",
}
TRACE_FOLDERS = (ROOT / "shared/data/traces", ROOT.parent / "shared/data/traces")
LOADS = (0.3, 0.95, 1.3)
REPLICAS = 16
PLENTY_OF_BLOCKS = 2_560_000
FEW_BLOCKS = 1_500  # of KV memory: at least a fifth of the requests are thrown out of it
TENTH = 10  # slow ways of playing get a tenth of the requests


class LeftOut(Exception):
    """A case that cannot be measured here, and why."""


# Deployments ---------------------------------------------------------------------------------------------------


@cache
def table(model: str, accelerator: str, precision: str, ranks: int = 1) -> StepTable:
    """Step times of a row of the catalogue under vLLM."""
    catalogue = load_catalogue()
    architecture = catalogue.model(model)
    deployment = Deployment(
        model=architecture,
        precision=catalogue.precision(precision, model=architecture),
        accelerator=catalogue.accelerator(accelerator),
        engine=catalogue.engine("vllm"),
        parallelism=Parallelism(tensor=1, data=ranks, expert=ranks),
        knobs=SchedulerKnobs(max_num_batched_tokens=BUDGET, max_num_seqs=SEATS, block_tokens=BLOCK_TOKENS),
    )
    return StepModel(deployment, efficiency_for(deployment.accelerator, "vllm")).table()


def dense() -> StepTable:
    return table("meta-llama/Meta-Llama-3.1-8B", "h100_sxm", "bf16")


def limits(blocks: int = BLOCKS, **options: Any) -> EngineLimits:
    return EngineLimits(
        max_num_batched_tokens=BUDGET, max_num_seqs=SEATS, block_tokens=BLOCK_TOKENS, kv_blocks=blocks, **options
    )


# Requests ------------------------------------------------------------------------------------------------------


def lognormal(random: np.random.Generator, n: int, median: float, p95: float) -> np.ndarray:
    drawn = median * np.exp(np.log(p95 / median) / P95 * random.standard_normal(n))
    return np.maximum(1, np.rint(drawn)).astype(np.int64)


@cache
def synthetic(n: int) -> Requests:
    """Poisson arrivals, one a second."""
    random = np.random.default_rng(1)
    return Requests(
        arrival_s=np.cumsum(random.exponential(1.0, n)),
        prompt_tokens=lognormal(random, n, 512, 4096),
        output_tokens=lognormal(random, n, 128, 1024),
    )


@dataclass(frozen=True, slots=True)
class Bench:
    """What the command line asks for."""

    requests: int
    folders: tuple[Path, ...]

    def trace(self, name: str) -> Requests:
        return read(self.path(name))

    def tiled(self, name: str) -> Requests:
        one = self.trace(name)
        return tile(one, max(1, round(self.requests / len(one))))

    def path(self, name: str) -> str:
        shipped = TRACE_FILES[name].split(".")[0]
        if shipped in SHIPPED:
            return shipped
        for folder in self.folders:
            if (folder / TRACE_FILES[name]).exists():
                return str(folder / TRACE_FILES[name])
        raise LeftOut(f"no {TRACE_FILES[name]} (--traces FOLDER)")


@cache
def read(path: str) -> Requests:
    return read_trace(path).requests


def without_blocks(requests: Requests) -> Requests:
    return replace(requests, block_offsets=None, block_ids=None, block_tokens=0)


# Playing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    """Something that plays requests: `simulate`, or another with the same semantics. `play` returns answer times, s."""

    table: StepTable
    limits: EngineLimits
    fleet: Fleet = field(default_factory=Fleet)

    def play(self, requests: Requests) -> np.ndarray:
        done_s: np.ndarray = simulate(requests, self.table, self.limits, fleet=self.fleet).timings.done_s
        return done_s

    def saturation(self, requests: Requests) -> float:
        """Requests a second that one replica answers while its queue never ends."""
        alone = replace(self, fleet=Fleet())
        many = tile(requests, -(-BURST // len(requests))) if len(requests) < BURST else requests
        burst = many.take(slice(0, BURST))
        done = np.sort(alone.play(replace(burst, arrival_s=np.zeros(len(burst)))))
        done = done[np.isfinite(done)]
        low, high = done.size // 4, 3 * done.size // 4
        return float((high - low) / (done[high] - done[low]))

    def loaded(self, requests: Requests, load: float) -> Requests:
        rate = self.saturation(requests) * self.fleet.replicas * load
        return requests.at_rate(rate / requests.rate_per_s)

    def cpu_s(self, requests: Requests, runs: int = RUNS) -> float:
        """Least CPU time of `runs` runs after one to warm up."""
        self.play(requests.take(slice(0, 1000)))
        return min(cpu_time(lambda: self.play(requests)) for _ in range(runs))

    def speed(self, requests: Requests, load: float, runs: int = RUNS) -> float:
        return len(requests) / self.cpu_s(self.loaded(requests, load), runs)


@dataclass(frozen=True)
class Explicit(Server):
    """One step after another, compiled."""

    ranks: int = 1
    speculation: Speculation | None = None

    def play(self, requests: Requests) -> np.ndarray:
        run = play_explicit(
            np.rint(requests.arrival_s * PS_PER_S).astype(np.int64),
            requests.prompt_tokens,
            requests.output_tokens,
            table=self.table,
            limits=self.limits,
            ranks=self.ranks,
            moe_tokens_shared=self.ranks > 1,
            speculation=self.speculation,
        )
        return np.where(run.done_ps < 0, np.nan, run.done_ps / PS_PER_S)


def cpu_time(what: Callable[[], object]) -> float:
    before = time.process_time()
    what()
    return time.process_time() - before


# Cases ---------------------------------------------------------------------------------------------------------


def synthetic_case(b: Bench) -> float:
    return Server(dense(), limits()).speed(synthetic(b.requests), SATURATION)


def ten_million(b: Bench) -> float:
    return Server(dense(), limits()).speed(synthetic(10 * b.requests), SATURATION, runs=1)


def experts(b: Bench) -> float:
    moe = table("Qwen/Qwen3-30B-A3B", "h100_sxm", "bf16")
    return Server(moe, limits()).speed(synthetic(b.requests), SATURATION)


def sliding_window(b: Bench) -> float:
    window = table("openai/gpt-oss-20b", "h100_sxm", "mxfp4")
    assert window.window_tokens
    return Server(window, limits()).speed(synthetic(b.requests), SATURATION)


def trace_case(name: str, load: float) -> Callable[[Bench], float]:
    return lambda b: Server(dense(), limits()).speed(without_blocks(b.tiled(name)), load)


def preemption(b: Bench) -> float:
    server = Server(dense(), limits(FEW_BLOCKS))
    requests = synthetic(b.requests)
    requests = replace(requests, prompt_tokens=np.maximum(1, requests.prompt_tokens // 2))
    requests = server.loaded(requests.take(requests.prompt_tokens + requests.output_tokens < 8192), SATURATION)
    thrown_out = simulate(requests, server.table, server.limits).timings.preemptions > 0
    if thrown_out.mean() < 0.2:
        raise LeftOut(f"{thrown_out.mean():.0%} of the requests are preempted, at least 20% should be")
    return len(requests) / server.cpu_s(requests)


def prefix_cache(b: Bench) -> float:
    return Server(dense(), limits(prefix_caching=True)).speed(b.tiled("mooncake"), SATURATION)


def replicas(routing: Routing) -> Callable[[Bench], float]:
    fleet = Fleet(replicas=REPLICAS, routing=routing)
    return lambda b: Server(dense(), limits(), fleet).speed(synthetic(b.requests), SATURATION)


def attention_dp(b: Bench) -> float:
    ranks = 8
    step = table("deepseek-ai/DeepSeek-V3", "h200_sxm", "fp8", ranks)
    return Explicit(step, limits(), ranks=ranks).speed(synthetic(max(1000, b.requests // 2)), SATURATION)


def speculation(b: Bench) -> float:
    guesses = Speculation(draft_tokens=3, acceptance=(0.3, 0.2, 0.2, 0.3), draft_ps=500_000_000)
    server = Explicit(dense(), limits(), speculation=guesses)
    return server.speed(synthetic(max(1000, b.requests // TENTH)), SATURATION)


def explicit(b: Bench) -> float:
    return Explicit(dense(), limits()).speed(synthetic(max(1000, b.requests // TENTH)), SATURATION)


def oracle(b: Bench) -> float:
    from tests.sim.oracle import play

    server = Server(dense(), limits())
    requests = server.loaded(synthetic(b.requests), SATURATION).take(slice(0, 2000))
    return len(requests) / cpu_time(lambda: play(requests, server.table, server.limits))


def bytes_per_request(b: Bench) -> float:
    server = Server(dense(), limits())
    requests = server.loaded(synthetic(b.requests), SATURATION)
    tracemalloc.start()
    run = simulate(requests, server.table, server.limits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert run.timings.finished.any()
    return peak / len(requests)


def output_x10(blocks: int) -> Callable[[Bench], float]:
    server = Server(dense(), limits(blocks))
    return lambda b: (
        server.cpu_s(server.loaded(tenfold(synthetic(b.requests)), SATURATION))
        / server.cpu_s(server.loaded(synthetic(b.requests), SATURATION))
    )


def output_x10_preemptions(b: Bench) -> float:
    server = Server(dense(), limits())
    requests = server.loaded(tenfold(synthetic(b.requests)), SATURATION)
    return float(simulate(requests, server.table, server.limits).timings.preemptions.mean())


def tenfold(requests: Requests) -> Requests:
    return replace(requests, output_tokens=10 * requests.output_tokens)


def first_call(_: Bench) -> float:
    """Wall time of the first simulate() of a process whose machine code is kept from an earlier one."""
    command = [sys.executable, str(Path(__file__)), "--first-call"]
    return min(float(subprocess.run(command, capture_output=True, check=True, text=True).stdout) for _ in range(RUNS))


def say_first_call() -> None:
    requests, step, bounds = synthetic(1000), dense(), limits()
    before = time.perf_counter()
    simulate(requests, step, bounds)
    print(time.perf_counter() - before)


def play_beside(n: int, together: Any, times: Any) -> None:  # noqa: ANN401 - a barrier and a queue
    server = Server(dense(), limits())
    requests = server.loaded(synthetic(n), SATURATION)
    server.play(requests)
    for _ in range(RUNS + 2):
        together.wait()
        before = time.perf_counter()
        for _ in range(5):
            server.play(requests)
        together.wait()
        times.put(time.perf_counter() - before)


def two_processes(b: Bench) -> float:
    if (os.cpu_count() or 1) < 2:
        raise LeftOut("one core")
    context = multiprocessing.get_context("spawn")
    wall_s = []
    for count in (1, 2):
        together, times = context.Barrier(count), context.SimpleQueue()
        workers = [context.Process(target=play_beside, args=(b.requests, together, times)) for _ in range(count)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        wall_s.append(min(times.get() for _ in range(count * (RUNS + 2))))
    return 2 * wall_s[0] / wall_s[1]


SPEEDS: dict[str, Callable[[Bench], float]] = {
    "synthetic_1m@saturation": synthetic_case,
    "synthetic_1m_moe@saturation": experts,
    "synthetic_1m_window@saturation": sliding_window,
    **{f"{name}@{load}": trace_case(name, load) for name in TRACE_FILES for load in LOADS},
    "preemption": preemption,
    "prefix_cache_1m": prefix_cache,
    "replicas16_round_robin": replicas(Routing.ROUND_ROBIN),
    "replicas16_least_outstanding": replicas(Routing.LEAST_OUTSTANDING),
    "replicas16_power_of_two": replicas(Routing.POWER_OF_TWO),
    "attention_dp8": attention_dp,
    "speculation": speculation,
    "explicit@saturation": explicit,
    "oracle@saturation": oracle,
}
ON_REQUEST: dict[str, Callable[[Bench], float]] = {"synthetic_10m@saturation": ten_million}
NUMBERS: dict[str, Callable[[Bench], float]] = {
    "bytes_per_request": bytes_per_request,
    "output_x10_time_ratio": output_x10(PLENTY_OF_BLOCKS),
    "output_x10_time_ratio_short_of_memory": output_x10(BLOCKS),
    "output_x10_preemptions": output_x10_preemptions,
    "two_process_speedup": two_processes,
    "first_call_s": first_call,
}


def measure(names: list[str], bench: Bench) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        try:
            if name in NUMBERS:
                found[name] = float(f"{NUMBERS[name](bench):.4g}")
            else:
                found[name] = {"requests_per_cpu_s": round((SPEEDS | ON_REQUEST)[name](bench))}
        except LeftOut as reason:
            print(f"{name} left out: {reason}", file=sys.stderr)
            continue
        print(f"{name}: {found[name]}", file=sys.stderr)
    return found


def markdown(found: dict[str, Any]) -> str:
    lines = ["| Case | Requests per CPU second |", "|---|---:|"]
    lines += [f"| {name} | {x['requests_per_cpu_s']:,} |" for name, x in found.items() if isinstance(x, dict)]
    numbers = [f"| {name} | {x:g} |" for name, x in found.items() if not isinstance(x, dict)]
    return "\n".join([*lines, *(["", "| Measure | |", "|---|---:|", *numbers] if numbers else [])])


def main() -> None:
    every = [*SPEEDS, *NUMBERS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a Markdown table")
    parser.add_argument("--case", action="append", choices=[*every, *ON_REQUEST], metavar="NAME", default=[])
    parser.add_argument("--requests", type=int, default=REQUESTS, metavar="N", help="of a case named for a million")
    parser.add_argument("--traces", type=Path, metavar="FOLDER")
    parser.add_argument("--list", action="store_true", help="names of the cases")
    parser.add_argument("--first-call", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.list:
        print("\n".join([*every, *ON_REQUEST]))
    elif asked.first_call:
        say_first_call()
    else:
        folders = (asked.traces,) if asked.traces else TRACE_FOLDERS
        found = measure(asked.case or every, Bench(asked.requests, folders))
        print(json.dumps(found, indent=2) if asked.json else markdown(found))


if __name__ == "__main__":
    main()
