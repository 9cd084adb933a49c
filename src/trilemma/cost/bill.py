"""The bill: {capital, operational, engineering} x {useful, waste, headroom, idle, stranded} in $/h, and unit costs."""

import math

from trilemma.catalogue.economics import Economics
from trilemma.catalogue.engine import Engine
from trilemma.catalogue.offer import Offer
from trilemma.cost.checks import check_economics, check_offer, check_run, check_schedule
from trilemma.cost.engineering import engineering_lines, tuning_weeks
from trilemma.cost.fleet import Case, Fleet
from trilemma.cost.lines import Dimension, Line
from trilemma.cost.notes import (
    capacity_notes,
    figures_used,
    load_notes,
    obligation_notes,
    price_notes,
    rests_on,
)
from trilemma.cost.offers import CHARGES
from trilemma.cost.packing import whole_where_meant
from trilemma.cost.power import UNLOADED_IDLE_SHARE
from trilemma.cost.views import Bill, Reclaimable, Volumes
from trilemma.deployment.spec import Deployment
from trilemma.metrics.activity import Activity, Capacity, Schedule
from trilemma.units import SECONDS_PER_H

__all__ = ["Bill", "Reclaimable", "Volumes", "bill", "volumes_of"]


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
) -> Bill:
    """Prices a deployment that repeats `schedule` for ever, from one run's activity and a replica's capacity.

    `replicas` is what an owned or reserved fleet is bought for (default: the deployment's); never fewer than the most
    held. `as_of` (ISO date) ages the prices. Raises InputError for what cannot be priced, naming the key.
    """
    check_economics(economics)
    check_offer(offer, accelerator=deployment.accelerator.name)
    check_run(activity, capacity)
    check_schedule(schedule)
    size = deployment.parallelism.gpus
    wanted = deployment.replicas if replicas is None else replicas
    bought = max(wanted, math.ceil(float(whole_where_meant(schedule.held_replicas).max())))
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
    fleet = case.holding(schedule.held_replicas)
    lean = case.holding(fleet.use.asked / size)
    lines = CHARGES[offer.kind](fleet)
    lines += engineering_lines(fleet, deployment, engine, is_useful=fleet.use.mean.useful > 0)
    busy_gpu_s = activity.prefill_gpu_s + activity.decode_gpu_s
    source, weakest_note = rests_on(figures_used(offer, economics, tuning_weeks(engine, deployment)))
    return Bill(
        offer=offer.name,
        kind=offer.kind.value,
        lines=lines,
        volumes=volumes_of(activity, fleet.use.over_period(fleet.use.served_rps)),
        paid_gpus=fleet.paid_gpus,
        held_gpus=fleet.use.over_period(fleet.use.held),
        gpus=fleet.use.mean,
        purchase_units=fleet.units,
        purchase_unit_gpus=offer.purchase_unit_gpus,
        it_watts=fleet.power.mean_w,
        pue=economics.pue,
        prefill_share=activity.prefill_gpu_s / busy_gpu_s if busy_gpu_s else None,
        headroom_is_split=capacity.knee_rps is not None,
        reclaimable=_reclaimable(fleet, lean, lines),
        notes=(
            *load_notes(fleet, schedule, activity, gpus_per_replica=size),
            *obligation_notes(fleet),
            *capacity_notes(capacity, economics, offer),
            *price_notes(offer, economics, as_of),
            weakest_note,
        ),
        source=source,
    )


def volumes_of(activity: Activity, served_rps: float) -> Volumes:
    """Hourly volumes when `served_rps` requests arrive like those of the run."""
    requests_per_h = served_rps * SECONDS_PER_H
    per_request = requests_per_h / activity.requests if activity.requests else 0.0
    return Volumes(
        requests_per_h=requests_per_h,
        requests_in_limits_per_h=activity.requests_in_limits * per_request,
        prompt_tokens_per_h=activity.prompt_tokens_in_limits * per_request,
        output_tokens_per_h=activity.output_tokens_in_limits * per_request,
    )


def _reclaimable(fleet: Fleet, lean: Fleet, lines: tuple[Line, ...]) -> tuple[Reclaimable, ...]:
    """What idle and stranded capacity could give back; headroom and waste need another plan, not another tenant."""
    now, after = (sum(line.usd_per_h for line in CHARGES[fleet.offer.kind](f)) for f in (fleet, lean))
    hours = [line.split for line in lines if line.name != "energy" and line.dimension is not Dimension.ENGINEERING]
    return (
        Reclaimable(
            cause="idle", scale_down_usd_per_h=max(0.0, now - after), backfill_usd_per_h=sum(s.idle for s in hours)
        ),
        Reclaimable(cause="stranded", scale_down_usd_per_h=0.0, backfill_usd_per_h=sum(s.stranded for s in hours)),
    )
