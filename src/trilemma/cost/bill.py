"""The bill: {capital, operational, engineering} x {useful, waste, headroom, idle, stranded} in $/h, and unit costs."""

import math

import numpy as np

from trilemma.catalogue.economics import Economics
from trilemma.catalogue.engine import Effort, Engine, Topology
from trilemma.catalogue.figure import Source
from trilemma.catalogue.offer import Offer, OfferKind
from trilemma.cost.checks import check_economics, check_offer, check_run, check_schedule
from trilemma.cost.engineering import engineering_lines, precision_rate, topology_of
from trilemma.cost.fleet import Case, Fleet, held_of
from trilemma.cost.lines import Line
from trilemma.cost.money import energy_usd_per_h
from trilemma.cost.notes import (
    capacity_notes,
    figures_used,
    interruption_notes,
    load_notes,
    obligation_notes,
    price_notes,
    rests_on,
    start_notes,
)
from trilemma.cost.offers import CHARGES, energy_usd_per_h_of
from trilemma.cost.packing import whole_where_meant
from trilemma.cost.power import UNLOADED_IDLE_SHARE
from trilemma.cost.sharing import made_once
from trilemma.cost.views import Bill, ByToken, Reclaimable, Volumes
from trilemma.deployment.spec import Deployment
from trilemma.metrics.activity import Activity, Capacity, Schedule
from trilemma.units import SECONDS_PER_H

__all__ = ["Bill", "ByToken", "Reclaimable", "Volumes", "bill", "volumes_of"]


def bill(  # noqa: PLR0917 - what is priced, then how, then what happened: an order callers rely on
    deployment: Deployment,
    offer: Offer,
    economics: Economics,
    engine: Engine,
    activity: Activity,
    capacity: Capacity,
    schedule: Schedule,
    *,
    replicas: int | None = None,
    as_of: str | None = None,
    unloaded_idle_share: float = UNLOADED_IDLE_SHARE.value,
    topology: Topology | None = None,
) -> Bill:
    """Prices a deployment that repeats `schedule` for ever, from one run's activity and a replica's capacity.

    `replicas` is what an owned or reserved fleet is bought for (default: the deployment's); never fewer than the most
    held. `as_of` (ISO date) ages the prices. `topology` decides what engineers have to do (default: by the GPUs of a
    replica; a disaggregated deployment has to be named). Raises InputError for what cannot be priced, naming the key.
    """
    check_economics(economics)
    check_offer(offer, accelerator=deployment.accelerator.name)
    check_run(activity, capacity)
    check_schedule(schedule)
    size = deployment.parallelism.gpus
    wanted = deployment.replicas if replicas is None else replicas
    bought = max(wanted, math.ceil(float(held_of(schedule).max())))
    case = Case(
        deployment=deployment,
        offer=offer,
        economics=economics,
        activity=activity,
        capacity=capacity,
        schedule=schedule,
        bought_replicas=bought,
        unloaded_idle_share=unloaded_idle_share,
    )
    fleet = case.holding(held_of(schedule))
    use, effort = fleet.use, engine.effort[topology or topology_of(deployment)]
    lines = CHARGES[offer.kind](fleet)
    reclaimable = _reclaimable(fleet, case, lines)
    lines += engineering_lines(fleet, deployment, effort, is_useful=fleet.gpus.useful > 0)
    prefill_gpus = use.over_period(use.prefill)
    busy_gpus = prefill_gpus + use.over_period(use.decode)
    source, weakest_note = _rests_on(
        economics, offer, effort, names=tuple(line.name for line in lines), precision_rate=precision_rate(deployment)
    )
    obligations = (*obligation_notes(fleet), *interruption_notes(fleet))
    return Bill(
        offer=offer.name,
        kind=offer.kind.value,
        lines=lines,
        volumes=volumes_of(activity, use.over_period(use.served_rps)),
        paid_gpus=fleet.paid_gpus,
        held_gpus=use.over_period(use.held),
        gpus=fleet.gpus,
        purchase_units=fleet.units,
        purchase_unit_gpus=offer.purchase_unit_gpus,
        it_watts=fleet.power.mean_w,
        pue=economics.pue,
        prefill_share=prefill_gpus / busy_gpus if busy_gpus else None,
        headroom_is_split=capacity.knee_rps is not None,
        reclaimable=reclaimable,
        notes=(
            *load_notes(fleet.use, schedule, activity, gpus_per_replica=size),
            *start_notes(fleet),
            *obligations,
            *capacity_notes(capacity, economics, offer),
            *price_notes(offer, economics, as_of),
            weakest_note,
        ),
        source=source,
        obligations=obligations,
        cached_prefill_share=activity.cached_prefill_share,
        grid_gco2_per_kwh=economics.grid_gco2_per_kwh,
        backfill_credit_usd_per_h=_backfill_credit_usd_per_h(fleet, capacity),
    )


@made_once
def _rests_on(
    economics: Economics, offer: Offer, effort: Effort, *, names: tuple[str, ...], precision_rate: str | None
) -> tuple[Source, str]:
    """The weakest source among the figures of lines with these names, and a sentence about it."""
    return rests_on(figures_used(economics, offer, effort, names, precision_rate=precision_rate))


def volumes_of(activity: Activity, served_rps: float) -> Volumes:
    """Hourly volumes when `served_rps` requests arrive like those of the run."""
    requests_per_h = served_rps * SECONDS_PER_H
    per_request = requests_per_h / activity.requests if activity.requests else 0.0
    return Volumes(
        requests_per_h=requests_per_h,
        requests_in_limits_per_h=activity.requests_in_limits * per_request,
        prompt_tokens_per_h=activity.prompt_tokens_in_limits * per_request,
        output_tokens_per_h=activity.output_tokens_in_limits * per_request,
        cached_prompt_tokens_per_h=activity.cached_prompt_tokens * per_request,
    )


def _reclaimable(fleet: Fleet, case: Case, lines: tuple[Line, ...]) -> tuple[Reclaimable, ...]:
    """What idle and stranded capacity could give back; headroom and waste need another plan, not another tenant.

    `lines` are the offer's own. Scaling down to what is asked for leaves a reservation as it is.
    """
    hours = [line.split for line in lines if line.name != "energy"]
    return (
        Reclaimable(
            cause="idle",
            scale_down_usd_per_h=max(0.0, _scale_down_usd_per_h(fleet, case, lines)),
            backfill_usd_per_h=sum(s.idle for s in hours),
        ),
        Reclaimable(cause="stranded", scale_down_usd_per_h=0.0, backfill_usd_per_h=sum(s.stranded for s in hours)),
    )


def _scale_down_usd_per_h(fleet: Fleet, case: Case, lines: tuple[Line, ...]) -> float:
    """What holding only the replicas asked for takes off `lines`, the offer's own."""
    lean_replicas = whole_where_meant(fleet.use.asked / fleet.gpus_per_replica)
    all_asked_for = np.array_equal(lean_replicas, held_of(case.schedule))
    if fleet.offer.kind is OfferKind.RESERVED or all_asked_for:
        return 0.0
    lean = case.holding(lean_replicas)
    if fleet.offer.kind is OfferKind.OWNED:  # the same units: nothing but their energy changes
        left = sum(energy_usd_per_h_of(lean) if line.name == "energy" else line.usd_per_h for line in lines)
    else:
        left = sum(line.usd_per_h for line in CHARGES[fleet.offer.kind](lean))
    return sum(line.usd_per_h for line in lines) - left


def _backfill_credit_usd_per_h(fleet: Fleet, capacity: Capacity) -> float | None:
    """What batch work in the idle GPU time would be worth to the user, at saturation's output and the value of a batch
    token; owned, less the energy it burns. None where saturation is unmeasured; never below 0: nobody has to do it."""
    activity, economics = fleet.activity, fleet.economics
    if not economics.backfill_usd_per_mtok:
        return 0.0
    if capacity.saturation_rps is None:
        return None
    if not activity.requests_in_limits:
        return 0.0
    tokens_per_request = activity.output_tokens_in_limits / activity.requests_in_limits
    tokens_per_gpu_h = capacity.saturation_rps * tokens_per_request / fleet.gpus_per_replica * SECONDS_PER_H
    worth = fleet.gpus.idle * tokens_per_gpu_h / 1e6 * economics.backfill_usd_per_mtok
    if fleet.offer.kind is not OfferKind.OWNED:
        return worth
    watts = fleet.power.extra_w_of_work_in_idle
    tariff = economics.electricity_usd_per_kwh
    return max(0.0, worth - energy_usd_per_h(watts, pue=economics.pue, usd_per_kwh=tariff))
