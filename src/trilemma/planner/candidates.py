"""Every deployment of a question's space, and the ones that cannot run, with the reason."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.efficiency import efficiency_for
from trilemma.catalogue.engine import Engine
from trilemma.deployment.memory import Memory, memory, why_not
from trilemma.deployment.spec import Deployment, Parallelism, SchedulerKnobs
from trilemma.errors import UnsupportedError
from trilemma.latency.step import StepModel
from trilemma.planner.answer import Rejection, describe
from trilemma.planner.question import Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A deployment of one replica that fits, with its memory and its latency model."""

    deployment: Deployment
    memory: Memory
    steps: StepModel


def knob_choices(question: Question, engine: Engine, accelerator: Accelerator) -> Iterator[tuple[int, int]]:
    """(max_num_batched_tokens, max_num_seqs) pairs: those asked for, or the engine's defaults for the accelerator."""
    defaults = engine.scheduler_for(accelerator.hbm_bytes, accelerator.family)
    tokens = question.space.max_num_batched_tokens or (defaults.max_num_batched_tokens,)
    seqs = question.space.max_num_seqs or (defaults.max_num_seqs,)
    for budget, seats in product(tokens, seqs):
        yield budget, min(seats, budget)


def deployments(question: Question) -> Iterator[Deployment]:
    """All combinations of the space, one replica each, in a fixed order."""
    space = question.space
    longest = question.workload.requests.prompt_tokens + question.workload.requests.output_tokens
    for accelerator, precision, engine, tensor, kv in product(
        space.accelerators, space.precisions, space.engines, space.tensor_parallel, space.kv_bytes_per_element
    ):
        for budget, seats in dict.fromkeys(knob_choices(question, engine, accelerator)):
            yield Deployment(
                model=question.model,
                precision=precision,
                accelerator=accelerator,
                engine=engine,
                parallelism=Parallelism(tensor=tensor),
                knobs=SchedulerKnobs(
                    max_num_batched_tokens=budget,
                    max_num_seqs=seats,
                    block_tokens=engine.block_tokens,
                    gpu_memory_utilization=engine.gpu_memory_utilization,
                    max_model_len=int(longest.max()),
                ),
                kv_bytes_per_element=kv,
            )


def screen(deployment: Deployment, question: Question) -> Candidate | Rejection:
    """The deployment as a candidate, or why it is out before any simulation."""
    label = describe(deployment)
    accelerator = deployment.accelerator
    if deployment.parallelism.tensor > accelerator.link_domain_gpus:
        reason = f"TP{deployment.parallelism.tensor} exceeds the link domain of {accelerator.link_domain_gpus} GPUs"
        return Rejection(label=label, stage="support", reason=reason)
    limit = question.space.max_gpus
    if limit is not None and deployment.gpus > limit:
        return Rejection(
            label=label, stage="size", reason=f"one replica needs {deployment.gpus} GPUs, max_gpus is {limit}"
        )
    try:
        steps = StepModel(deployment, efficiency_for(accelerator, deployment.engine.name))
        held = memory(deployment)
    except UnsupportedError as error:
        return Rejection(label=label, stage="support", reason=str(error))
    if not held.fits:
        return Rejection(label=label, stage="memory", reason=why_not(deployment))
    return Candidate(deployment=deployment, memory=held, steps=steps)
