"""`plan`: a scenario to the cheapest deployment inside its limits."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import trilemma
from trilemma.api.kept import PlanRun, opened
from trilemma.api.question import Asked, ask, default_precisions
from trilemma.catalogue.precision import Precision
from trilemma.deploy.launch import launch_script, launch_summary
from trilemma.deployment.spec import Deployment
from trilemma.errors import InputError, UnsupportedError
from trilemma.planner.answer import Plan
from trilemma.planner.explanation import Explanation, Wanted
from trilemma.report.document import PlanReport

if TYPE_CHECKING:
    from trilemma.planner.answer import Answer
    from trilemma.planner.plan import Progress
    from trilemma.planner.question import Question

RARELY = 100  # times as many new objects as usual before garbage is looked for
SMALL = 48  # deployments: to start processes takes as long as to simulate some hundred


def quiet(_done: int, _total: int, _what: str) -> None:
    """Reports no progress."""


def plan(
    path: Path | str,
    *,
    overrides: Mapping[str, object] | None = None,
    catalogue_files: Sequence[Path] = (),
    seed: int | None = None,
    progress: "Progress" = quiet,
    processes: int | None = None,
    engine: str = "processes",
    store: Path | None = None,
    keep: bool = True,
    limit_prices: bool = True,
    why_not: str = "",
    levers: bool = False,
) -> PlanReport:
    """The plan of a scenario file, with flags over it (`overrides`: dotted keys) and further catalogue files.

    What is simulated is kept in `store` (default: this user's, see docs/guide/runs.md) unless `keep` is False: a plan
    that was stopped goes on where it was, a repeated one is answered at once. `engine` "ray" spreads the work over a
    cluster. The answer depends neither on the store nor on `processes` (default: all cores) or `engine`.

    The answer is explained: with the price of every limit unless `limit_prices` is False, with the reason why none of
    the deployments was chosen that the words of `why_not` pick ("h200,tp4"), and with what each single change does
    where `levers` are asked for.

    A `progress` that raises Interrupted stops the search: the best so far is the answer, not `complete`. Raises
    InputError for what cannot be meant, InfeasibleError with the nearest miss where nothing meets the limits,
    Interrupted where the search was stopped before anything was found.
    """
    asked = ask(path, overrides=overrides, catalogue_files=catalogue_files, seed=seed)
    wanted = Wanted(
        limit_prices=limit_prices,
        why_not=why_not,
        levers=levers,
        precisions=_formats(asked) if levers else (),
    )
    with _seldom_collected(), opened(store, keep=keep) as kept:
        run = PlanRun.of(asked, kept, {"limit_prices": limit_prices, "why_not": why_not, "levers": levers})
        report = run.recalled()
        if report is None:
            report = _found(run, progress, processes, engine, wanted)
    if report.answer.chosen is None:
        _say_why_nothing(report.answer)
    return report


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Looks for garbage less often meanwhile: a plan makes next to none that points in a circle, and to look through
    the hundred thousand objects it keeps again and again takes half a second."""
    before = gc.get_threshold()
    gc.set_threshold(RARELY * before[0], *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _found(
    run: PlanRun, progress: "Progress", processes: int | None, engine: str, wanted: Wanted
) -> PlanReport:  # fmt: skip
    """The answer computed and explained, with its run noted and its work kept."""
    # Imported late, with the simulator: what is answered from the store needs neither.
    from trilemma.api.pool import prepare_workers, workers

    question = run.asked.question
    if engine == "processes":
        processes = 1 if processes is None and _is_small(question) else processes
        prepare_workers(processes)

    from trilemma.planner.explain import check_wanted, explain
    from trilemma.planner.plan import check
    from trilemma.planner.plan import plan as find

    try:
        check(question)
        check_wanted(question, wanted)
    except InputError as error:
        raise _at_its_keys(run.asked, error) from None
    with run.noted() as note, workers(processes, engine=engine) as spread:
        executor = run.around(spread)
        answer = find(question, progress, executor)
        answer, told = explain(question, answer, executor, progress, wanted=wanted)
        report = _reported(run.asked, answer, told)
        note(report)
    return report


def _at_its_keys(asked: Asked, error: InputError) -> InputError:
    """An error about keys of the scenario ("space.engines and space.accelerators"), said where they stand."""
    known = {"space", "workload", "objective", "model", "sizing"}
    places = [
        asked.scenario.where(*key.split(".")) if key.split(".")[0] in known else key
        for one in error.where.split(" and ")
        for key in one.split(" with ")[:1]
    ]
    return InputError(" and ".join(places), expected=error.expected, found=error.found, hint=error.hint)


def _is_small(question: "Question") -> bool:
    """Whether a space is searched here sooner than other processes are ready."""
    from trilemma.planner.candidates import deployments

    few = len(list(islice(deployments(question), SMALL + 1))) <= SMALL
    return few and True not in question.space.disaggregated


def _reported(asked: Asked, answer: "Answer", told: Explanation) -> PlanReport:
    """An answer with what it needs to be read and run again."""
    return PlanReport(
        answer=answer,
        question=asked.question,
        scenario=asked.scenario.resolved(),
        launch="" if answer.chosen is None else launch_of(answer.chosen, launch_script),
        launch_summary="" if answer.chosen is None else launch_of(answer.chosen, launch_summary),
        version=trilemma.__version__,
        catalogue_digest=asked.catalogue.digest,
        explanation=told,
    )


def _formats(asked: Asked) -> tuple[Precision, ...]:
    """The weight formats that levers try: 16 bits, and what a plan tries unless told otherwise."""
    model = asked.question.model
    return (asked.catalogue.precision("bf16", model=model), *default_precisions(asked.catalogue, model))


def _say_why_nothing(answer: "Answer") -> None:
    """Raises what an answer without a plan means."""
    from trilemma.planner.plan import Interrupted, raise_if_infeasible

    if not answer.complete:
        raise Interrupted(f"{answer.name}: stopped before any plan was found")
    raise_if_infeasible(answer)


def launch_of(chosen: Plan, write: Callable[[Deployment], str]) -> str:
    """The commands that start a plan; for an engine without known flags, why there are none."""
    try:
        return write(chosen.trial.deployment)
    except UnsupportedError as error:
        return f"# {error}\n"
