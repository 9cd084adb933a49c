"""How replicas may spread over GPUs, and what of a space cannot be meant together."""

from collections.abc import Iterator
from itertools import product

from trilemma.catalogue.model import Model
from trilemma.catalogue.support import precision_on
from trilemma.deployment.spec import Parallelism
from trilemma.errors import InputError
from trilemma.planner.question import Question, Space


def parallelisms(space: Space, model: Model) -> Iterator[Parallelism]:
    """Every split of a replica, each once, in a fixed order; whether the model can be cut so is not asked.

    Experts left open stay whole beside their tensor-parallel attention, or are spread over all GPUs of a stage.
    """
    seen: set[Parallelism] = set()
    for tensor, pipeline, data in product(space.tensor_parallel, space.pipeline_parallel, space.data_parallel):
        spread = (1, tensor * data) if model.is_moe else (1,)
        for expert in space.expert_parallel or spread:
            found = Parallelism(tensor=tensor, pipeline=pipeline, data=data, expert=expert)
            if found not in seen:
                seen.add(found)
                yield found


def check_together(question: Question) -> None:
    """InputError for two restrictions of a space that leave nothing together, naming both."""
    space, model = question.space, question.model
    accelerators = ", ".join(a.name for a in space.accelerators)
    if not any(engine.runs_on(a) for engine, a in product(space.engines, space.accelerators)):
        engines = ", ".join(engine.name for engine in space.engines)
        raise _pair("engines", "accelerators", "an engine that runs on one of them", f"{engines} for {accelerators}")
    if all(precision_on(p, a).compute is None for p, a in product(space.precisions, space.accelerators)):
        precisions = ", ".join(p.name for p in space.precisions)
        raise _pair("precisions", "accelerators", "a format that runs on one of them", f"{precisions} {accelerators}")
    widest = max(a.link_domain_gpus for a in space.accelerators)
    if min(space.tensor_parallel) > widest:
        found = f"TP{min(space.tensor_parallel)} against {widest} GPUs"
        raise _pair("tensor_parallel", "accelerators", "tensor parallelism inside a link domain", found)
    if not model.is_moe:
        for key, ways in (("data_parallel", space.data_parallel), ("expert_parallel", space.expert_parallel)):
            if ways and min(ways) > 1:
                found = f"{min(ways)} for {model.name}"
                raise _against(f"space.{key}", "model", "1 for a model without experts", found)
    if space.prefix_caching == (True,) and question.workload.requests.block_ids is None:
        found = f"none in {question.workload.label}"
        raise _against("space.prefix_caching", "workload", "requests that name their prefix blocks", found)
    if space.speculative_mtp == (True,) and not model.mtp_layers:
        found = f"none in {model.name}"
        raise _against("space.speculative_mtp", "model", "layers that predict further tokens", found)


def _pair(one: str, other: str, expected: str, found: str) -> InputError:
    return _against(f"space.{one}", f"space.{other}", expected, found)


def _against(one: str, other: str, expected: str, found: str) -> InputError:
    return InputError(f"{one} and {other}", expected=expected, found=found, hint="change one of the two")
