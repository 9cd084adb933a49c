"""What the comparison's tests share: offers of an H100 with ranges, an API's prices, and subjects made of the fleet."""

from dataclasses import fields, replace

import numpy as np
from hypothesis import HealthCheck, settings
from tests.cost.conftest import figure

from trilemma.catalogue.figure import Source
from trilemma.catalogue.offer import ApiPrice, Offer, OfferKind
from trilemma.cost.subject import Subject
from trilemma.metrics.activity import Capacity

# The fleet is made anew for each test and never changed by these: its examples may share it.
FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def offer_of(kind, price, *, name=None, unit=8, **more):
    price = price if not isinstance(price, int | float) else figure(float(price))
    return Offer(
        name=name or f"h100/{kind.value}", accelerator="h100_sxm", kind=kind, price=price, purchase_unit_gpus=unit,
        market="test", **more,
    )  # fmt: skip


OWNED = offer_of(OfferKind.OWNED, figure(285_000.0, low=250_000.0, high=350_000.0))
ON_DEMAND = offer_of(OfferKind.ON_DEMAND, figure(3.29, low=1.99, high=6.16))
RESERVED = offer_of(OfferKind.RESERVED, figure(2.72, low=2.35, high=2.79), term_months=12)
PREPAID = offer_of(
    OfferKind.RESERVED, figure(1.3), name="h100/reserved-3y-prepaid", term_months=36, upfront_share=0.25
)  # fmt: skip
SPOT = offer_of(OfferKind.SPOT, figure(2.0, low=1.25, high=2.46), interruptions_per_h=figure(0.02, low=0.0, high=0.1))
H100_OFFERS = (OWNED, ON_DEMAND, RESERVED, PREPAID, SPOT)


def api_price(price_in=0.9, price_out=0.9, *, low=0.5, high=1.5):
    return ApiPrice(
        model="llama-70b",
        input_usd_per_mtok=figure(price_in, low=price_in * low, high=price_in * high),
        output_usd_per_mtok=figure(price_out, low=price_out * low, high=price_out * high),
    )


def subject_of(fleet, **more):
    """The two halves of a day of the fleet, sized by its knee with 25% of headroom and one spare."""
    values = {
        "deployment": fleet.deployment, "activity": fleet.activity, "capacity": fleet.capacity,
        "seconds": fleet.schedule.seconds, "load_rps": fleet.schedule.load_rps, "economics": fleet.economics,
        "headroom": 0.25, "spare": 1, "as_of": "2026-11-01", "reason": "two halves of a day",
    }  # fmt: skip
    return Subject(**(values | more))


def job_of(fleet, **more):
    """7,200 requests a day, done in two hours by three replicas."""
    values = {
        "seconds": np.array([2.0, 22.0]) * 3600, "load_rps": np.array([1.0, 0.0]), "replicas": 3, "is_job": True,
        "capacity": Capacity(saturation_rps=2.5, knee_rps=None),
    }  # fmt: skip
    return subject_of(fleet, **(values | more))


def ranged(economics, **ranges):
    """Economics whose figures have low and high: field=(low, value, high)."""
    figures = {k: figure(v, Source.GUESS, low=a, high=b) for k, (a, v, b) in ranges.items()}
    return replace(economics, figures=figures, **{k: v for k, (_, v, _) in ranges.items()})


def free_of_people(economics):
    """Without engineering and staff: what is left is hardware, rent and energy."""
    people = ("upkeep_fte", "operations_fte_per_node", "benchmark_gpu_hours", "engineer_usd_per_year")
    return replace(economics, **{f.name: 0.0 for f in fields(economics) if f.name in people})
