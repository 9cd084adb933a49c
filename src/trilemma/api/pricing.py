"""`cost`: one deployment, chosen by the user, under a scenario's load, priced."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trilemma.api.chosen import held, saturated, staged
from trilemma.api.question import DEFAULT_OFFERS, Asked, ask
from trilemma.catalogue.offer import Offer
from trilemma.errors import InputError
from trilemma.planner.answer import Trial
from trilemma.planner.plan import Progress, price, quiet
from trilemma.report.document import bill_dict, deployment_dict, limit_dict


def cost(
    path: Path | str,
    *,
    deployment: Mapping[str, Any],
    offer: str | None = None,
    overrides: Mapping[str, object] | None = None,
    catalogue_files: Sequence[Path] = (),
    seed: int | None = None,
    progress: Progress = quiet,
) -> dict[str, Any]:
    """The four-dimension bill of one deployment under the scenario's load, with every line's formula.

    `offer` is a kind (owned, on-demand, reserved-1y, reserved-3y, spot) or an offer's own name; default: the cheapest
    of the scenario's. The deployment is chosen as in `simulate`.
    """
    asked = ask(path, overrides=overrides, catalogue_files=catalogue_files, seed=seed)
    progress(0, 3, "choosing")
    replicas, stage = staged(asked, deployment)
    trial = held(stage, saturated(stage, progress), replicas, progress)
    plans = [price(trial, o, asked.question) for o in _offers(asked, trial, offer)]
    best = min(plans, key=lambda p: p.usd_per_h)
    limits = [limit_dict(x, trial.summary, trial.margins.get(x.metric, 1.0)) for x in asked.question.limits]
    return {"deployment": deployment_dict(trial.deployment), "limits": limits} | bill_dict(best.bill)


def _offers(asked: Asked, trial: Trial, wanted: str | None) -> tuple[Offer, ...]:
    accelerator = trial.deployment.accelerator.name
    if wanted is not None and "/" in wanted:
        named = asked.catalogue.offer(wanted, where="--offer")
        if named.accelerator != accelerator:
            raise InputError("--offer", expected=f"an offer of {accelerator}", found=repr(wanted))
        return (named,)
    if wanted is not None:
        found = asked.catalogue.offers_for(accelerator, kinds=(wanted,), where="--offer")
    else:
        found = asked.question.space.offers_for(trial.deployment.accelerator)
        found = found or asked.catalogue.offers_for(accelerator, kinds=DEFAULT_OFFERS)
    if not found:
        raise InputError("--offer", expected=f"an offer of {accelerator}", found=f"none {wanted or ''}".strip())
    return found
