"""A plan in the store: its run noted, its finished work kept, its whole answer found again."""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trilemma
from trilemma.api.question import Asked
from trilemma.errors import InputError
from trilemma.planner.keys import key_of
from trilemma.report.document import PlanReport
from trilemma.store.place import named, switched_off
from trilemma.store.remembering import Remembering
from trilemma.store.runs import Kept, Status
from trilemma.store.store import Store

if TYPE_CHECKING:
    from trilemma.planner.plan import Executor

PLAN = "plan"
GIVEN = ("question", "scenario")  # parts of a report that whoever asks has anyway


@contextmanager
def opened(path: Path | None, *, keep: bool) -> Iterator[Store | None]:
    """The store at `path` (default: this user's); None where nothing is to be kept.

    A place that somebody named must do. Where the usual one does not, the work goes on without, and a warning says so.
    """
    if not keep or (path is None and switched_off()):
        yield None
        return
    store = Store.open(path)
    try:
        kept = store.__enter__()
    except InputError as error:
        if path is not None or named():
            raise
        warnings.warn(f"nothing is kept: {error}", UserWarning, stacklevel=3)
        yield None
        return
    try:
        yield kept
    finally:
        store.__exit__(None, None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRun:
    """One plan and where it is kept; without a store it keeps nothing."""

    asked: Asked
    store: Store | None
    key: str

    @classmethod
    def of(cls, asked: Asked, store: Store | None, options: Mapping[str, object]) -> "PlanRun":
        """`options` are what the answer depends on beside the question; plain values."""
        if store is None:
            return cls(asked=asked, store=None, key="")
        more = json.dumps([asked.scenario.resolved(), dict(options)], default=str, sort_keys=True)
        item = (PLAN, asked.question, asked.catalogue.digest, more)
        return cls(asked=asked, store=store, key=key_of(PlanRun.of, asked.question, item))

    def recalled(self) -> PlanReport | None:
        """The whole answer as it was given before."""
        if self.store is None:
            return None
        found = self.store.trials.known([self.key]).get(self.key)
        names = {field.name for field in fields(PlanReport)} - set(GIVEN)
        if not isinstance(found, dict) or set(found) != names or not self.store.runs.asked_again(self.key):
            return None
        return PlanReport(**found, question=self.asked.question, scenario=self.asked.scenario.resolved())

    def around(self, executor: "Executor") -> "Executor":
        """The executor, with what is done kept and not done again."""
        return executor if self.store is None else Remembering(executor, self.store.trials, _key_of)

    @contextmanager
    def noted(self) -> Iterator[Callable[[PlanReport], None]]:
        """Notes that the plan runs, and how it ends: with the report given to the function, or without one."""
        if self.store is None:
            yield lambda report: None
            return
        runs, asked = self.store.runs, self.asked
        name, digest = asked.question.name, asked.catalogue.digest
        run = runs.begin(self.key, kind=PLAN, name=name, digest=digest, program=trilemma.__version__)
        reports: list[PlanReport] = []
        try:
            yield reports.append
        finally:
            report = next((r for r in reports if r.answer.complete or r.answer.chosen is not None), None)
            whole = report is not None and report.answer.complete
            if report is not None and whole:
                content = {f.name: getattr(report, f.name) for f in fields(report) if f.name not in GIVEN}
                self.store.trials.remember([(self.key, content)])
            if report is not None and report.answer.chosen is not None:
                from trilemma.api.kept_price import keep_price  # late: it needs the simulator

                keep_price(self.store, run, report.answer.chosen, asked)
            status = Status.COMPLETE if whole else Status.INTERRUPTED
            kept = None if report is None else Kept(document=report.to_dict(), printed=_printed(report))
            runs.end(run, status, summary={} if report is None else _summary(report), kept=kept)


def _key_of(function: Callable[..., Any], item: object) -> str:
    """The key of an item of `partial(function, question, ...)`."""
    work: Any = function
    question, *more = work.args
    return key_of(work.func, question, (item, more, work.keywords) if more or work.keywords else item)


def _printed(report: PlanReport) -> str:
    """What the plan prints as a table; why not, where nothing was chosen."""
    from trilemma.report.text import plan_text  # late: what is answered from the store prints what it likes

    return plan_text(report) if report.answer.chosen is not None else _why_nothing(report)


def _why_nothing(report: PlanReport) -> str:
    from trilemma.errors import InfeasibleError
    from trilemma.planner.plan import raise_if_infeasible

    try:
        raise_if_infeasible(report.answer)
    except InfeasibleError as error:
        return str(error)
    return ""


def _summary(report: PlanReport) -> dict[str, Any]:
    """What a list of runs shows of an answer."""
    answer, chosen = report.answer, report.answer.chosen
    return {
        "chosen": None if chosen is None else chosen.label,
        "usd_per_h": None if chosen is None else chosen.usd_per_h,
        "usd_per_mtok_output": None if chosen is None else chosen.bill.usd_per_mtok_output,
        "candidates": answer.counts.candidates,
        "simulated": answer.counts.simulated,
    }
