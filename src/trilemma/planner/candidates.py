"""Every deployment of a question's space, and the ones that cannot run, with the reason."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import exp

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.engine import Engine
from trilemma.catalogue.quality import quality_of
from trilemma.catalogue.support import precision_on
from trilemma.deployment.memory import Memory, memory, why_not
from trilemma.deployment.spec import Deployment, Parallelism, SchedulerKnobs
from trilemma.deployment.weights import total_params
from trilemma.errors import UnsupportedError
from trilemma.latency.constants import efficiency_of
from trilemma.latency.mixers import Typical
from trilemma.latency.step import StepModel
from trilemma.planner.answer import Rejection, describe
from trilemma.planner.question import Question
from trilemma.sim.interval import Error
from trilemma.sim.neighbours import Traits, load_neighbours, traits_of

SMALLER_BUDGETS = (2048, 512)
LARGEST_BUDGET = 16_384
BF16_KV_BYTES = 2.0  # per element
USUAL_CLIENTS = 64  # at once on one replica: the load whose measured runs a candidate is compared with


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A deployment of one replica that fits, with its memory, its latency model, and how far that may be off.

    `errors` maps "tpot" and "ttft" to what measured runs of like deployments say; the step model is already stretched
    by the mean of TPOT's.
    """

    deployment: Deployment
    memory: Memory
    steps: StepModel
    errors: Mapping[str, Error]


def knob_choices(question: Question, engine: Engine, accelerator: Accelerator) -> Iterator[tuple[int, int]]:
    """(max_num_batched_tokens, max_num_seqs) pairs: those asked for, or the engine's defaults for the accelerator.

    Beside a default token budget stand smaller ones for work that waits (a prefill chunk delays every running decode)
    and the largest default for batch work. Seats never exceed the budget, which vLLM refuses: default seats shrink to
    it, pairs asked for that break the rule are left out.
    """
    defaults = engine.scheduler_for(accelerator.hbm_bytes, accelerator.family)
    own = defaults.max_num_batched_tokens
    if question.workload.batch:
        beside = tuple(b for b in (LARGEST_BUDGET,) if b > own)
    else:
        beside = tuple(b for b in SMALLER_BUDGETS if b < own)
    tokens = question.space.max_num_batched_tokens or (own, *beside)
    if question.space.max_num_seqs:
        yield from (
            (budget, seats) for budget, seats in product(tokens, question.space.max_num_seqs) if seats <= budget
        )
    else:
        yield from ((budget, min(defaults.max_num_seqs, budget)) for budget in tokens)


def deployments(question: Question) -> Iterator[Deployment]:
    """All combinations of the space, one replica each, in a fixed order."""
    space = question.space
    longest = question.workload.requests.prompt_tokens + question.workload.requests.output_tokens
    for accelerator, precision, engine, tensor in product(
        space.accelerators, space.precisions, space.engines, space.tensor_parallel
    ):
        caches = space.kv_bytes_per_element or (precision.kv_bytes_per_element,)
        knobs = dict.fromkeys(knob_choices(question, engine, accelerator))
        for kv, (budget, seats) in product(caches, knobs):
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


def unsupported(deployment: Deployment, question: Question) -> Iterator[str]:
    """Reasons why hardware and engine do not go with the deployment, or the question leaves it out."""
    accelerator, engine = deployment.accelerator, deployment.engine
    if deployment.parallelism.tensor > accelerator.link_domain_gpus:
        yield f"TP{deployment.parallelism.tensor} exceeds the link domain of {accelerator.link_domain_gpus} GPUs"
    support = precision_on(deployment.precision, accelerator)
    if support.compute is None:
        yield f"{deployment.precision.name} does not run on {accelerator.name}: {support.reason}"
    elif question.space.only_native and not support.native and deployment.precision.name != question.model.precision:
        yield f"{support.reason}; name {deployment.precision.name} in space.precisions to try it"
    if not engine.runs_on(accelerator):
        yield f"{engine.title} does not run on {accelerator.vendor}"
    if question.space.max_accuracy_loss_pct is not None:
        yield from too_lossy(deployment, question.space.max_accuracy_loss_pct)


def too_lossy(deployment: Deployment, bound_pct: float) -> Iterator[str]:
    """Why published scores do not let the precision of weights or KV cache pass; the checkpoint's own weights, BF16
    weights and a BF16 cache lose nothing."""
    names = [] if deployment.precision.name in {deployment.model.precision, "bf16"} else [deployment.precision.name]
    if deployment.kv_bytes_per_element < BF16_KV_BYTES:
        names.append("fp8_kv")
    for name in names:
        found = quality_of(name, total_params(deployment.model))
        if found is None:
            yield f"max_accuracy_loss_pct is {bound_pct:g} and no score of {name} is published for models of this size"
        elif found.loss_pct > bound_pct:
            yield (
                f"{name} loses {found.loss_pct:.1f}% in {found.count} published scores of models of this size "
                f"({found.reference}), max_accuracy_loss_pct is {bound_pct:g}"
            )


def screen(deployment: Deployment, question: Question) -> Candidate | Rejection:
    """The deployment as a candidate, or why it is out before any simulation."""
    label = describe(deployment)
    if reason := next(unsupported(deployment, question), ""):
        return Rejection(label=label, stage="support", reason=reason)
    limit = question.space.max_gpus
    if limit is not None and deployment.gpus > limit:
        reason = f"needs {deployment.gpus} GPUs for one replica, max_gpus is {limit}"
        return Rejection(label=label, stage="size", reason=reason, gpus_needed=deployment.gpus)
    requests = question.workload.requests
    prompt, output = float(requests.prompt_tokens.mean()), float(requests.output_tokens.mean())
    held = memory(deployment, reference_tokens=int(prompt + output))
    if not held.fits:
        return Rejection(label=label, stage="memory", reason=why_not(deployment))
    traits = traits_of(deployment, isl=prompt, osl=output, concurrency=USUAL_CLIENTS)
    found = {metric: c.of(0) for metric, c in load_neighbours().correct(Traits.of([traits])).items()}
    typical = Typical(prompt_tokens=prompt, context_tokens=prompt + output / 2)
    try:
        steps = StepModel(
            deployment,
            efficiency_of(deployment),
            typical,
            stretch=exp(found["tpot"].mean),
        )
    except UnsupportedError as error:
        return Rejection(label=label, stage="support", reason=str(error))
    errors = {metric: error.doubted(steps.source) for metric, error in found.items()}
    return Candidate(deployment=deployment, memory=held, steps=steps, errors=errors)
