"""Every deployment of a question's space, and the ones that cannot run, with the reason."""

from collections.abc import Iterator
from itertools import product

import numpy as np

from trilemma.catalogue.accelerator import Accelerator
from trilemma.catalogue.engine import Engine
from trilemma.catalogue.model import Model
from trilemma.catalogue.precision import Precision
from trilemma.catalogue.quality import quality_of
from trilemma.catalogue.support import precision_on
from trilemma.cost.packing import box_gpus, units_for
from trilemma.deployment.memory import Memory, memory, why_not
from trilemma.deployment.spec import Deployment, SchedulerKnobs
from trilemma.deployment.validity import problems
from trilemma.deployment.weights import total_params
from trilemma.errors import UnsupportedError
from trilemma.planner.answer import Rejection, describe
from trilemma.planner.candidate import USUAL_CLIENTS, Candidate, candidates_of
from trilemma.planner.question import Question
from trilemma.planner.spread import parallelisms

__all__ = ["USUAL_CLIENTS", "Candidate", "deployments", "knob_choices", "screen", "unsupported", "without"]

SMALLER_BUDGETS = (2048, 512)
LARGEST_BUDGET = 16_384
BF16_KV_BYTES = 2.0  # per element
PRIORITY_ENGINE = "vllm"


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
    """All combinations of the space, one replica each, in a fixed order; what a whole space lacks (`without`) is left
    out."""
    space, lacking = question.space, without(question)
    spreads = tuple(parallelisms(space, question.model))
    requests = question.workload.requests
    longest = int((requests.prompt_tokens + requests.output_tokens).max())
    extras = tuple(
        (prefix, mtp)
        for prefix, mtp in product(space.prefix_caching, space.speculative_mtp)
        if not (prefix and "prefix caching" in lacking) and not (mtp and "speculative decoding" in lacking)
    )
    for accelerator, precision, engine in product(space.accelerators, space.precisions, space.engines):
        caches = space.kv_bytes_per_element or (precision.kv_bytes_per_element,)
        knobs = tuple(
            SchedulerKnobs(
                max_num_batched_tokens=budget,
                max_num_seqs=seats,
                block_tokens=engine.block_tokens,
                gpu_memory_utilization=engine.gpu_memory_utilization,
                max_model_len=longest,
                prefix_caching=prefix,
                by_priority=requests.priority is not None,
            )
            for prefix in dict.fromkeys(prefix for prefix, _ in extras)
            for budget, seats in dict.fromkeys(knob_choices(question, engine, accelerator))
        )
        for parallelism, kv, (prefix, mtp) in product(spreads, caches, extras):
            for choice in knobs:
                if choice.prefix_caching == prefix:
                    yield Deployment(
                        model=question.model,
                        precision=precision,
                        accelerator=accelerator,
                        engine=engine,
                        parallelism=parallelism,
                        knobs=choice,
                        kv_bytes_per_element=kv,
                        speculative_mtp=mtp,
                    )


_labelled: list[tuple[tuple[object, ...], dict[str, Deployment]]] = []  # of the last space asked about


def by_label(question: Question) -> dict[str, Deployment]:
    """`deployments` by their descriptions; those of the last space kept, which is asked about under many limits."""
    about = (question.model, question.space, question.workload)
    if not _labelled or any(a is not b for a, b in zip(_labelled[0][0], about, strict=True)):
        _labelled[:] = [(about, {describe(d): d for d in deployments(question)})]
    return _labelled[0][1]


def without(question: Question) -> dict[str, str]:
    """What the space asks for and nothing in it can have, with the reason: said once, not for every deployment."""
    found = {}
    if True in question.space.prefix_caching and question.workload.requests.block_ids is None:
        label = question.workload.label
        found["prefix caching"] = f"{label} names no prefix blocks: what a cache would find is unknown"
    if True in question.space.speculative_mtp and not question.model.mtp_layers:
        found["speculative decoding"] = f"{question.model.name} has no layers that predict further tokens"
    return found


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
    if question.workload.requests.priority is not None and engine.name != PRIORITY_ENGINE:
        yield f"priorities of classes are scheduled as vLLM does; {engine.title} is not simulated with them"
    yield from problems(deployment.model, deployment.parallelism)
    if question.space.max_accuracy_loss_pct is not None:
        d = deployment
        yield from too_lossy(d.model, d.precision, d.kv_bytes_per_element, question.space.max_accuracy_loss_pct)


def too_lossy(model: Model, precision: Precision, kv_bytes: float, bound_pct: float) -> Iterator[str]:
    """Why published scores do not let the precision of weights or KV cache pass; the checkpoint's own weights, BF16
    weights and a BF16 cache lose nothing."""
    names = [] if precision.name in {model.precision, "bf16"} else [precision.name]
    if kv_bytes < BF16_KV_BYTES:
        names.append("fp8_kv")
    for name in names:
        found = quality_of(name, total_params(model))
        if found is None:
            yield f"max_accuracy_loss_pct is {bound_pct:g} and no score of {name} is published for models of this size"
        elif found.loss_pct > bound_pct:
            yield (
                f"{name} loses {found.loss_pct:.1f}% in {found.count} published scores of models of this size "
                f"({found.reference}), max_accuracy_loss_pct is {bound_pct:g}"
            )


def screen(deployment: Deployment, question: Question) -> Candidate | Rejection:
    """The deployment as a candidate, or why it is out before any simulation."""
    fitting = fit(deployment, question)
    if isinstance(fitting, Rejection):
        return fitting
    try:
        return candidates_of(question, [(deployment, fitting)])[0]
    except UnsupportedError as error:
        return Rejection(label=describe(deployment), stage="support", reason=str(error))


def fit(deployment: Deployment, question: Question, *, reference_tokens: int | None = None) -> Memory | Rejection:
    """The memory of a deployment that runs and fits, or why it does not.

    `reference_tokens` are those of the question's mean request, where they are known.
    """
    if reason := next(unsupported(deployment, question), ""):
        return Rejection(label=describe(deployment), stage="support", reason=reason)
    if too_large := beyond(deployment, 1, question):
        return too_large
    if reference_tokens is None:
        reference_tokens = int(sum(question.workload.mean_tokens))
    held = memory(deployment, reference_tokens=reference_tokens)
    if not held.fits:
        return Rejection(label=describe(deployment), stage="memory", reason=why_not(deployment))
    return held


def nodes_of(accelerator: Accelerator, replicas: int, gpus_per_replica: int) -> int:
    """Whole nodes that so many replicas take."""
    wanted = units_for(
        np.array([float(replicas)]),
        gpus_per_replica=gpus_per_replica,
        unit_gpus=accelerator.gpus_per_node,
        box=box_gpus(accelerator),
    )
    return int(wanted[0])


def beyond(deployment: Deployment, replicas: int, question: Question) -> Rejection | None:
    """Why so many replicas exceed max_gpus or max_nodes; None where they do not."""
    size, space = deployment.parallelism.gpus, question.space
    what = "one replica" if replicas == 1 else "the load"
    gpus = size * replicas
    if space.max_gpus is not None and gpus > space.max_gpus:
        reason = f"needs {gpus} GPUs for {what}, max_gpus is {space.max_gpus}"
        return Rejection(label=describe(deployment), stage="size", reason=reason, gpus_needed=gpus)
    if space.max_nodes is None:
        return None
    nodes = nodes_of(deployment.accelerator, replicas, size)
    if nodes <= space.max_nodes:
        return None
    reason = f"needs {nodes} nodes for {what}, max_nodes is {space.max_nodes}"
    return Rejection(label=describe(deployment), stage="size", reason=reason, nodes_needed=nodes)
