"""Tokens bought from an API: all operational and useful, but for the weeks it takes to wrap it."""

import math

from trilemma.catalogue.economics import Economics
from trilemma.catalogue.figure import Figure, weakest
from trilemma.catalogue.offer import ApiPrice
from trilemma.catalogue.staleness import stale_prices
from trilemma.cost.checks import check_economics
from trilemma.cost.engineering import weeks_line
from trilemma.cost.lines import Dimension, Line, cite, dollars, number
from trilemma.cost.use import ByUse
from trilemma.cost.views import Bill, Volumes
from trilemma.errors import InputError
from trilemma.metrics.activity import Activity, Schedule
from trilemma.units import SECONDS_PER_H


def api_volumes(activity: Activity, *, load_rps: float) -> Volumes:
    """Every request of the load, inside its limits or not: an API charges for all tokens it processes.

    Prompt and output tokens are those of the run's requests inside their limits, scaled by (useful + late) / useful
    tokens. Raises InputError where the run has no request inside its limits to take lengths from.
    """
    if not activity.useful_tokens or not activity.requests:
        raise InputError(
            "activity.useful_tokens",
            expected="a run with requests inside its limits",
            found=repr(activity.useful_tokens),
        )
    requests_per_h = load_rps * SECONDS_PER_H
    scale = (
        (activity.useful_tokens + activity.late_tokens) / activity.useful_tokens * requests_per_h / activity.requests
    )
    return Volumes(
        requests_per_h=requests_per_h,
        requests_in_limits_per_h=requests_per_h,
        prompt_tokens_per_h=activity.prompt_tokens_in_limits * scale,
        output_tokens_per_h=activity.output_tokens_in_limits * scale,
        cached_prompt_tokens_per_h=activity.cached_prompt_tokens * scale,
    )


def api_bill(
    api_price: ApiPrice,
    activity: Activity,
    economics: Economics,
    *,
    schedule: Schedule | None = None,
    as_of: str | None = None,
) -> Bill:
    """The same workload bought as tokens; the load is the schedule's mean, without one the run's.

    Raises InputError for a negative or missing price or a foreign currency, naming the key.
    """
    check_economics(economics)
    if api_price.currency != "USD":
        raise InputError(f"api.{api_price.model}.currency", expected="USD", found=repr(api_price.currency))
    rate_rps = activity.rate_rps if math.isfinite(activity.rate_rps) else activity.requests / activity.span_s
    volumes = api_volumes(activity, load_rps=rate_rps if schedule is None else schedule.mean_load_rps)
    charged = _charged(api_price, volumes)
    lines = tuple(_tokens_line(api_price.model, side, price, tokens) for side, (price, tokens) in charged.items())
    weeks = economics.figures.get("api_wrapper_weeks")
    wrapper = weeks_line(
        "wrapper",
        economics.api_wrapper_weeks,
        economics,
        weeks_source=cite(weeks),
        is_useful=volumes.requests_per_h > 0,
    )
    notes = [] if as_of is None else list(stale_prices([api_price], as_of))
    notes.append("answers of the API are taken to meet the limits; its latency is not known here")
    notes += _cache_notes(api_price, volumes)
    return Bill(
        offer=f"api {api_price.model}",
        kind="api",
        lines=(*lines, wrapper),
        volumes=volumes,
        paid_gpus=0.0,
        held_gpus=0.0,
        gpus=ByUse(),
        purchase_units=0,
        purchase_unit_gpus=0,
        it_watts=None,
        pue=None,
        prefill_share=None,
        headroom_is_split=True,
        reclaimable=(),
        notes=tuple(notes),
        source=weakest(
            *(figure.source for figure in (weeks, *(price for price, _ in charged.values())) if figure is not None)
        ),
    )


def _charged(api_price: ApiPrice, volumes: Volumes) -> dict[str, tuple[Figure, float]]:
    """(price, tokens an hour) by what is charged: what the run found in its prefix cache at the cached price, where
    there is one."""
    cached = volumes.cached_prompt_tokens_per_h if api_price.cached_input_usd_per_mtok is not None else 0.0
    charged = {"input": (api_price.input_usd_per_mtok, volumes.prompt_tokens_per_h - cached)}
    if api_price.cached_input_usd_per_mtok is not None and cached > 0:
        charged["cached input"] = (api_price.cached_input_usd_per_mtok, cached)
    return charged | {"output": (api_price.output_usd_per_mtok, volumes.output_tokens_per_h)}


def _cache_notes(api_price: ApiPrice, volumes: Volumes) -> tuple[str, ...]:
    """What part of the input is priced as cached, and why."""
    priced = api_price.cached_input_usd_per_mtok is not None
    if not volumes.cached_prompt_tokens_per_h:
        unknown = "the share that the provider would find in its cache is not known"
        return (f"all input is priced as uncached: {unknown}",) if priced else ()
    share = f"{volumes.cached_prompt_tokens_per_h / volumes.prompt_tokens_per_h:.1%} of the input"
    if priced:
        return (f"{share} is priced as cached: what the run found in its prefix cache",)
    return (f"{share} was in the run's prefix cache, but no price of cached input is known: all is priced as uncached",)


def _tokens_line(model: str, side: str, price: Figure, tokens_per_h: float) -> Line:
    if not (math.isfinite(price.value) and price.value >= 0):
        raise InputError(
            f"api.{model}.{side.replace(' ', '_')}_usd_per_mtok",
            expected="a finite price of at least 0",
            found=repr(price.value),
        )
    usd_per_h = tokens_per_h / 1e6 * price.value
    return Line(
        name=f"{side} tokens",
        dimension=Dimension.OPERATIONAL,
        usd_per_h=usd_per_h,
        split=ByUse(useful=usd_per_h),
        formula=f"{number(tokens_per_h)} tokens / 1,000,000 x {dollars(price.value)} per million",
        source=f"price: {cite(price)}",
        scales_with_price=True,
    )
