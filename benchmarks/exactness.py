"""Random cases played by the compiled simulators and by the plain oracle, and how many are not equal.

    python benchmarks/exactness.py N [--first SEED] [--processes P]

Plays seeds SEED to SEED + N - 1 as the tests do: a kernel case each (any policy; prefix caching, sessions, fleets and
asynchronous scheduling in any union), and for every fourth seed a case of the explicit simulator too (long-prefill
threshold, priorities, speculation, ranks and more). Prints cases, requests, steps and failures by feature, and the
seeds of the failures. Exit status 1 where there were any. About 150 cases a second and core.
"""

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for the oracle and the cases, which belong to the tests

from tests.sim import test_exactness, test_explicit  # noqa: E402
from tests.sim.cases import Case, random_feature_case  # noqa: E402

from trilemma.sim import layout  # noqa: E402

CHUNK = 250
EXPLICIT_EVERY = 4


def features_of(case: Case) -> list[str]:
    """What a failure is counted under."""
    limits, requests = case.limits, case.requests
    is_so = {
        limits.policy.name: True,
        "prefix caching": limits.prefix_caching,
        "sessions": requests.think_s is not None,
        "closed loop": case.clients > 0,
        "several replicas": case.fleet.replicas > 1,
        "replicas come and go": case.fleet.changes,
        "asynchronous": limits.async_scheduling,
        "window": case.table.window_tokens > 0,
        "whole prompts": not limits.chunked_prefill,
        "threshold": limits.long_prefill_token_threshold > 0,
        "priorities": requests.priority is not None,
        "speculation": case.speculation is not None,
        "ranks": case.ranks > 1,
    }
    return [name for name, holds in is_so.items() if holds]


def explicit_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    features = frozenset().union(*(feature for feature in test_explicit.EVERY if rng.random() < 0.4))
    return random_feature_case(seed, features)


def play_chunk(seeds: range) -> tuple[Counter[tuple[str, str]], list[tuple[str, int, str]]]:
    """(counts by (what, feature), failures as (simulator, seed, what differs))."""
    counts: Counter[tuple[str, str]] = Counter()
    failures = []

    def note(simulator: str, case: Case, seed: int, steps: int, wrong: str) -> None:
        for feature in ("all", simulator, *features_of(case)):
            counts["cases", feature] += 1
            counts["requests", feature] += len(case.requests)
            counts["steps", feature] += steps
            counts["failures", feature] += bool(wrong)
        if wrong:
            failures.append((simulator, seed, wrong))

    for seed in seeds:
        case = test_exactness.seeded_case(seed)
        steps, wrong = 0, ""
        try:
            run, plain = case.play(), case.plain()
            steps, wrong = plain.steps, ", ".join(test_exactness.differences(case, run, plain))
        except Exception as error:  # noqa: BLE001 - counted and shown
            wrong = f"{type(error).__name__}: {error}"
        note("kernel", case, seed, steps, wrong)
        if seed % EXPLICIT_EVERY:
            continue
        case = explicit_case(seed)
        steps, wrong = 0, ""
        try:
            steps = int(test_explicit.assert_equal(case).totals[layout.STEPS])
        except Exception as error:  # noqa: BLE001
            wrong = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        note("explicit", case, seed, steps, wrong)
    return counts, failures


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("cases", type=int, metavar="N")
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count(), metavar="P")
    asked = parser.parse_args()
    end = asked.first + asked.cases
    chunks = [range(at, min(at + CHUNK, end)) for at in range(asked.first, end, CHUNK)]
    began = time.perf_counter()
    counts: Counter[tuple[str, str]] = Counter()
    failures: list[tuple[str, int, str]] = []
    with multiprocessing.get_context("spawn").Pool(asked.processes) as pool:
        for some_counts, some_failures in pool.imap_unordered(play_chunk, chunks):
            counts.update(some_counts)
            failures += some_failures
    columns = ("cases", "requests", "steps", "failures")
    print("| Feature | Cases | Requests | Steps | Failures |\n|---|---:|---:|---:|---:|")
    for feature in dict.fromkeys(name for _, name in counts):
        print(f"| {feature} | " + " | ".join(f"{counts[column, feature]:,}" for column in columns) + " |")
    print(f"\n{time.perf_counter() - began:.0f} s")
    for simulator, seed, wrong in sorted(failures)[:50]:
        print(f"{simulator}, seed {seed}: {wrong}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
