"""Many deployments at once: what fits, what each can do at best, and the limits that no load is light enough for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from trilemma.deployment.memory import Memory
from trilemma.deployment.spec import Deployment
from trilemma.errors import UnsupportedError
from trilemma.metrics.limits import Miss
from trilemma.planner.answer import Rejection, describe
from trilemma.planner.bench import Bench, saturation_rps
from trilemma.planner.candidate import Candidate, candidates_of
from trilemma.planner.candidates import fit
from trilemma.planner.question import Question
from trilemma.planner.trial import missed

CHUNK = 48  # deployments bounded in one go: they share kernels, and one message between processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Deployments that fit, with their memories."""

    deployments: tuple[Deployment, ...]
    memories: tuple[Memory, ...]
    content: ClassVar[tuple[str, ...]] = ("deployments",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounded:
    """A candidate, the most requests per second that one replica can serve, and why it is out if even a request alone
    misses a limit."""

    candidate: Candidate
    capacity_rps: float
    hopeless: Rejection | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Candidates whose saturation is asked for in one go."""

    candidates: tuple[Candidate, ...]


def fitting(deployments: Iterable[Deployment], question: Question) -> tuple[list[Chunk], list[Rejection]]:
    """The deployments that run and fit, in chunks, and why the others do not."""
    kept: list[tuple[Deployment, Memory]] = []
    rejected = []
    reference_tokens = int(sum(question.workload.mean_tokens))
    for deployment in deployments:
        found = fit(deployment, question, reference_tokens=reference_tokens)
        if isinstance(found, Rejection):
            rejected.append(found)
        else:
            kept.append((deployment, found))
    chunks = [kept[start : start + CHUNK] for start in range(0, len(kept), CHUNK)]
    return [Chunk(deployments=tuple(d for d, _ in c), memories=tuple(m for _, m in c)) for c in chunks], rejected


def bound_all(question: Question, chunk: Chunk) -> tuple[Bounded | Rejection, ...]:
    """Each deployment of a chunk as a bounded candidate, or why its step times are unknown."""
    return tuple(c if isinstance(c, Rejection) else bound(question, c) for c in screened(question, chunk))


def screened(question: Question, chunk: Chunk) -> Sequence[Candidate | Rejection]:
    """Each deployment of a chunk as a candidate, or why its step times are unknown: one that cannot be priced takes
    none of the others with it."""
    pairs = list(zip(chunk.deployments, chunk.memories, strict=True))
    try:
        return candidates_of(question, pairs)
    except UnsupportedError:
        return [_alone(question, deployment, held) for deployment, held in pairs]


def _alone(question: Question, deployment: Deployment, held: Memory) -> Candidate | Rejection:
    try:
        return candidates_of(question, [(deployment, held)])[0]
    except UnsupportedError as error:
        return Rejection(label=describe(deployment), stage="support", reason=str(error))


def bound(question: Question, candidate: Candidate) -> Bounded:
    """A candidate with what it can do at best; its step tables are given back."""
    bench = Bench(candidate, question)
    misses: tuple[Miss, ...] = bench.bounds.misses(question.workload, question.limits, bench.margins)
    hopeless = replace(missed(bench, misses, "even alone on a replica"), misses=misses) if misses else None
    capacity_rps = bench.most_rps
    candidate.forget()
    return Bounded(candidate=candidate, capacity_rps=capacity_rps, hopeless=hopeless)


def saturate_all(question: Question, batch: Batch) -> tuple[float, ...]:
    """The saturation of each candidate, requests per second."""
    found = []
    for candidate in batch.candidates:
        found.append(saturation_rps(Bench(candidate, question)))
        candidate.forget()
    return tuple(found)


def in_batches(candidates: Sequence[Candidate]) -> list[Batch]:
    """Candidates in batches of CHUNK."""
    return [Batch(candidates=tuple(candidates[i : i + CHUNK])) for i in range(0, len(candidates), CHUNK)]
