"""An answer explained: what each limit costs, the corners of the trilemma, what would change it, how sure it is."""

from dataclasses import replace
from functools import partial

from trilemma.planner.answer import Answer
from trilemma.planner.certainty import certainty
from trilemma.planner.corners import corners
from trilemma.planner.explanation import EVERYTHING, Explanation, LimitPrice, Wanted
from trilemma.planner.levers import levers
from trilemma.planner.limit_prices import Prices
from trilemma.planner.objectives import check_objective, preferred
from trilemma.planner.plan import HERE, Executor, Interrupted, Progress, quiet
from trilemma.planner.question import Objective, Question
from trilemma.planner.whatif import changes
from trilemma.planner.whynot import picked_labels, why_not
from trilemma.planner.work import Begin, Stoppable, side_by_side


def explain(
    question: Question,
    answer: Answer,
    executor: Executor = HERE,
    progress: Progress = quiet,
    *,
    wanted: Wanted = EVERYTHING,
) -> tuple[Answer, Explanation]:
    """The answer as the question's objective prefers it, and what explains it.

    An answer that was stopped half way gets no prices of limits: they compare with the cheapest plan, which is not
    known. A progress that raises Interrupted stops the explanation; what there is then is returned, and the answer is
    no longer complete. Raises InputError for words that pick nothing and for an objective without its budget.
    """
    answer, best = preferred(question, answer, executor)
    found = Explanation(
        corners=corners(answer.plans, is_job=question.workload.batch), stopped_in="" if answer.complete else "search"
    )
    if best is not None:
        found = replace(found, sentence=best.sentence, load_factor=best.load_factor)
    chosen = answer.chosen
    if chosen is None:
        return answer, found
    try:
        if question.objective is Objective.COST:
            found = _about_cost(question, answer, found, executor, progress, limit_prices=wanted.limit_prices)
        if wanted.why_not:
            progress(0, 1, "why not")
            found = replace(found, why_not=why_not(question, answer, wanted.why_not, executor))
        if wanted.levers:
            progress(0, 1, "levers")
            tried = levers(question, chosen, executor, precisions=wanted.precisions)
            found = replace(found, levers=tried)
    except Interrupted:
        found = replace(found, stopped_in=found.stopped_in or "explanation")
    return replace(answer, complete=not found.stopped_in), found


def check_wanted(question: Question, wanted: Wanted) -> None:
    """InputError for words that pick nothing and an objective without its budget: told before anything is searched."""
    check_objective(question)
    if wanted.why_not:
        picked_labels(question, wanted.why_not)


def _about_cost(
    question: Question, answer: Answer, found: Explanation, executor: Executor, progress: Progress, *,
    limit_prices: bool,
) -> Explanation:  # fmt: skip
    """The explanation of the cheapest plan: what would change it, how sure it is, what each bound costs."""
    plans, chosen = answer.plans, answer.chosen
    assert chosen is not None
    spread = Stoppable(executor)
    prices = Prices(question=question, answer=answer, chosen=chosen, executor=spread)
    is_priced = limit_prices and answer.complete
    with side_by_side(executor) as begin:
        if is_priced and spread.is_shared:
            prices.gains.prepare()  # before anything else: others wait for what follows from it
        changed = begin(partial(changes, plans, chosen, question))
        sure = begin(partial(certainty, plans, chosen, question))
        if is_priced:
            found = _priced(found, prices, spread, progress, begin)
        return replace(found, changes=changed(), certainty=sure())


def _priced(
    found: Explanation, prices: Prices, executor: Stoppable, progress: Progress, begin: Begin
) -> Explanation:  # fmt: skip
    """The explanation with the price of every bound; those there are where it is stopped."""
    bounds = list(prices.bounds())
    done: list[LimitPrice] = []
    stopped_in = ""
    try:
        if executor.is_shared and bounds:
            progress(0, len(bounds), f"price of {bounds[0][0]}")
            prices.probe_ahead()
        begun = [(name, begin(price)) for name, price in bounds]
        for i, (name, wait) in enumerate(begun):
            progress(i, len(bounds), f"price of {name}")
            done.append(wait())
        progress(len(bounds), len(bounds), "done")
    except Interrupted:
        stopped_in = "explanation"
    finally:
        executor.stop()  # whoever still waits for it in another thread
    return replace(found, limit_prices=tuple(done), simulations=prices.simulations, stopped_in=stopped_in)
