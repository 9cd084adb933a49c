"""`cost`: what a plan, a simulated deployment or a measured run costs under one offer."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trilemma.api.measured import priced_measurement
from trilemma.api.pool import workers
from trilemma.api.priced import Priced, priced_plan, priced_simulation
from trilemma.api.question import DEFAULT_OFFERS, Asked, ask
from trilemma.catalogue.offer import ApiPrice, Offer
from trilemma.catalogue.staleness import stale_prices
from trilemma.errors import InputError
from trilemma.planner.plan import Progress, quiet, raise_if_infeasible
from trilemma.planner.plan import plan as find
from trilemma.report.cost_document import cost_dict


def cost(
    path: Path | str,
    *,
    deployment: Mapping[str, Any],
    offer: str | None = None,
    measured: Path | None = None,
    overrides: Mapping[str, object] | None = None,
    catalogue_files: Sequence[Path] = (),
    seed: int | None = None,
    progress: Progress = quiet,
    processes: int | None = None,
) -> dict[str, Any]:
    """The four-dimension bill, with every line's formula: of the scenario's plan where `deployment` is empty, else of
    that deployment simulated under the scenario's load, or of the run `measured` on it (a table of requests).

    `offer` is a kind (owned, on-demand, reserved-1y, reserved-3y, spot) or an offer's own name; default: the cheapest
    of the scenario's. The deployment is chosen as in `simulate`. Raises InputError for what cannot be meant,
    InfeasibleError where nothing meets the limits, UnsupportedError with the reason for what cannot run.
    """
    asked = ask(path, overrides=overrides, catalogue_files=catalogue_files, seed=seed)
    if deployment or measured is not None:
        priced = one_priced(asked, deployment, measured, progress)
        offers = _offers(asked, priced.subject.deployment.accelerator.name, offer)
        best = min(offers, key=lambda o: priced.subject.bill(o).total_usd_per_h)
    else:
        priced, best = _planned(asked, offer, progress, processes)
    warn_of_old_prices([best], asked)
    question = asked.question
    return cost_dict(
        priced.subject.bill(best), priced.subject, what=priced.what, sentence=priced.sentence, limits=priced.limits,
        notes=priced.notes, name=question.name, offer=best, as_of=question.as_of,
    )  # fmt: skip


def one_priced(asked: Asked, deployment: Mapping[str, Any], measured: Path | None, progress: Progress) -> Priced:
    """The one deployment that flags name, simulated or measured."""
    if measured is not None:
        return priced_measurement(asked, deployment, measured, progress)
    return priced_simulation(asked, deployment, progress)


def warn_of_old_prices(offers: Iterable[Offer | ApiPrice], asked: Asked) -> None:
    """Warnings that name the date of every price too old on the scenario's day; those of its space were given."""
    question = asked.question
    mine = [offer for offer in offers if offer not in question.space.offers]
    for text in () if question.as_of is None else stale_prices(mine, question.as_of):
        warnings.warn(text, UserWarning, stacklevel=3)


def _planned(asked: Asked, offer: str | None, progress: Progress, processes: int | None) -> tuple[Priced, Offer]:
    """The cheapest plan inside the limits, of the scenario's offers or of the one asked for."""
    question = asked.question
    if offer is not None:
        accelerators = [a.name for a in question.space.accelerators]
        found = tuple(o for name in accelerators for o in _named(asked, name, offer, accelerators))
        if not found:
            raise InputError("--offer", expected=f"an offer of {', '.join(accelerators)}", found=f"none {offer}")
        question = replace(question, space=replace(question.space, offers=tuple(dict.fromkeys(found))))
    with workers(processes) as executor:
        answer = find(question, progress, executor)
    raise_if_infeasible(answer)
    assert answer.chosen is not None  # raise_if_infeasible
    return priced_plan(answer.chosen, question), answer.chosen.offer


def _offers(asked: Asked, accelerator: str, wanted: str | None) -> tuple[Offer, ...]:
    """The offers of one accelerator: those asked for, or the scenario's, or the usual ones."""
    if wanted is not None:
        found = _named(asked, accelerator, wanted, [accelerator])
    else:
        space = asked.question.space
        found = tuple(offer for offer in space.offers if offer.accelerator == accelerator)
        found = found or asked.catalogue.offers_for(accelerator, kinds=DEFAULT_OFFERS)
    if not found:
        raise InputError("--offer", expected=f"an offer of {accelerator}", found=f"none {wanted or ''}".strip())
    return found


def _named(asked: Asked, accelerator: str, wanted: str, among: Sequence[str]) -> tuple[Offer, ...]:
    """Offers of an accelerator by kind, or one by its own name if it is of one of the accelerators `among`."""
    if "/" not in wanted:
        return asked.catalogue.offers_for(accelerator, kinds=(wanted,), where="--offer")
    named = asked.catalogue.offer(wanted, where="--offer")
    if named.accelerator not in among:
        raise InputError("--offer", expected=f"an offer of {', '.join(among)}", found=repr(wanted))
    return (named,) if named.accelerator == accelerator else ()
