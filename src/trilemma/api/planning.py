"""`plan`: a scenario to the cheapest deployment inside its limits."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import trilemma
from trilemma.api.pool import workers
from trilemma.api.question import ask
from trilemma.deploy.vllm import vllm_script, vllm_summary
from trilemma.deployment.spec import Deployment
from trilemma.errors import UnsupportedError
from trilemma.planner.answer import Plan
from trilemma.planner.plan import Progress, quiet, raise_if_infeasible
from trilemma.planner.plan import plan as find
from trilemma.report.document import PlanReport


def plan(
    path: Path | str,
    *,
    overrides: Mapping[str, object] | None = None,
    catalogue_files: Sequence[Path] = (),
    seed: int | None = None,
    progress: Progress = quiet,
    processes: int | None = None,
) -> PlanReport:
    """The plan of a scenario file, with flags over it (`overrides`: dotted keys) and further catalogue files.

    Raises InputError for what cannot be meant, InfeasibleError with the nearest miss where nothing meets the limits.
    The answer does not depend on `processes` (default: all cores).
    """
    asked = ask(path, overrides=overrides, catalogue_files=catalogue_files, seed=seed)
    with workers(processes) as executor:
        answer = find(asked.question, progress, executor)
    raise_if_infeasible(answer)
    return PlanReport(
        answer=answer,
        question=asked.question,
        scenario=asked.scenario.resolved(),
        launch="" if answer.chosen is None else launch_of(answer.chosen, vllm_script),
        launch_summary="" if answer.chosen is None else launch_of(answer.chosen, vllm_summary),
        version=trilemma.__version__,
        catalogue_digest=asked.catalogue.digest,
    )


def launch_of(chosen: Plan, write: Callable[[Deployment], str]) -> str:
    """The commands that start a plan; for an engine without known flags, why there are none."""
    try:
        return write(chosen.trial.deployment)
    except UnsupportedError as error:
        return f"# {error}\n"
