"""What cannot be priced is refused by key: negative or missing numbers, a residual above the price, no unit."""

import math
from dataclasses import fields

from trilemma.catalogue.economics import Economics
from trilemma.catalogue.offer import Offer, OfferKind
from trilemma.cost.sharing import made_once
from trilemma.errors import InputError
from trilemma.metrics.activity import Activity, Capacity, Schedule

ABOVE_ZERO = frozenset({"horizon_months", "model_life_months"})
# Names are looked up once: a plan prices some thousand bills.
AMOUNTS = tuple(f.name for f in fields(Economics) if f.name not in {"figures", "exchange_rates"})
COUNTED = tuple(f.name for f in fields(Activity) if f.name not in {"rate_rps", "prefill_w", "decode_w", "busy_at"})

OVER_INTERVALS = tuple(f.name for f in fields(Schedule) if f.name != "reason")


def _amount(where: str, value: float, *, above_zero: bool = False) -> None:
    if not math.isfinite(value) or value < 0 or (above_zero and value == 0):
        expected = f"a finite number {'above 0' if above_zero else 'of at least 0'}"
        raise InputError(where, expected=expected, found=repr(value))


def _at_most(where: str, value: float, most: float, *, what: str) -> None:
    if value > most * (1 + 1e-9):
        raise InputError(where, expected=f"at most {what}, {most:g}", found=repr(value))


@made_once
def check_economics(economics: Economics) -> None:
    """Raises InputError naming the field: NaN, negative, a horizon or life of zero, PUE below 1, residual above 1."""
    for name in AMOUNTS:
        _amount(f"economics.{name}", float(getattr(economics, name)), above_zero=name in ABOVE_ZERO)
    if economics.pue < 1:
        raise InputError("economics.pue", expected="at least 1 (all power over IT power)", found=repr(economics.pue))
    if economics.residual_share > 1:
        raise InputError(
            "economics.residual_share",
            expected="at most 1: a residual not above the price",
            found=repr(economics.residual_share),
        )


@made_once
def check_offer(offer: Offer, *, accelerator: str) -> None:
    """Raises InputError naming offer and field: bad price, no purchase unit, foreign currency, another accelerator."""
    where = f"offers.{offer.name}"
    _amount(f"{where}.price", offer.price.value)
    if offer.purchase_unit_gpus < 1:
        raise InputError(
            f"{where}.purchase_unit_gpus",
            expected="the GPUs of one unit, at least 1",
            found=repr(offer.purchase_unit_gpus),
        )
    if offer.currency != "USD":
        raise InputError(
            f"{where}.currency", expected="USD", found=repr(offer.currency), hint="no rate is known; convert the price"
        )
    if offer.accelerator != accelerator:
        raise InputError(f"{where}.accelerator", expected=repr(accelerator), found=repr(offer.accelerator))
    if not 0 <= offer.upfront_share <= 1:
        raise InputError(f"{where}.upfront_share", expected="a share from 0 to 1", found=repr(offer.upfront_share))
    if offer.kind is OfferKind.RESERVED and offer.term_months < 1:
        raise InputError(f"{where}.term_months", expected="a term of at least 1 month", found=repr(offer.term_months))
    if offer.interruptions_per_h is not None:
        _amount(f"{where}.interruptions_per_h", offer.interruptions_per_h.value)
    if offer.start_s is not None:
        _amount(f"{where}.start_s", offer.start_s.value)
    _amount(f"{where}.billing_increment_h", offer.billing_increment_h)


@made_once
def check_run(activity: Activity, capacity: Capacity) -> None:
    """Raises InputError for negative or NaN activity or knee, for parts larger than their whole, and for a saturation
    that is not above 0."""
    for name in COUNTED:  # the offered rate, not used for prices, is infinite where everything arrives at once
        _amount(f"activity.{name}", float(getattr(activity, name)))
    for name in ("prefill_w", "decode_w"):
        watts = getattr(activity, name)
        if watts is not None:
            _amount(f"activity.{name}", watts)
    busy_gpu_s = activity.prefill_gpu_s + activity.decode_gpu_s
    _at_most("activity.lost_gpu_s", activity.lost_gpu_s, busy_gpu_s, what="the busy GPU-seconds")
    prompt = activity.prompt_tokens_in_limits
    _at_most("activity.cached_prompt_tokens", activity.cached_prompt_tokens, prompt, what="prompt_tokens_in_limits")
    _at_most("activity.cached_prefill_share", activity.cached_prefill_share, 1.0, what="the whole")
    for at in activity.busy_at:
        _amount("activity.busy_at.rps", at.rps, above_zero=True)
        _amount("activity.busy_at.prefill_share", at.prefill_share)
        _amount("activity.busy_at.decode_share", at.decode_share)
        _at_most("activity.busy_at", at.prefill_share + at.decode_share, 1.0, what="the whole time")
    if capacity.saturation_rps is not None:
        _amount("capacity.saturation_rps", capacity.saturation_rps, above_zero=True)
    if capacity.knee_rps is not None:
        _amount("capacity.knee_rps", capacity.knee_rps)


@made_once
def check_schedule(schedule: Schedule) -> None:
    """Raises InputError for arrays of different lengths, NaN, a negative load, a negative count of replicas."""
    for name in OVER_INTERVALS:
        values = getattr(schedule, name)
        # NaN is its array's least and largest, and compares with nothing.
        if values.shape != schedule.seconds.shape or not (values.min() >= 0 and values.max() < math.inf):
            raise InputError(
                f"schedule.{name}", expected="a finite number of at least 0 for each interval", found=repr(values)
            )
