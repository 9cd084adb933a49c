"""Is another engineer-week worth it? What a week costs an hour, and the throughput that pays for it at this fleet size.

A replica that takes (1 + gain) times the load makes the fleet that of a load smaller by as much. On average, over many
fleets, every dollar that follows the load shrinks with it; a single fleet shrinks by whole replicas and units, so that
a small gain may save nothing and the next one a node.
"""

from dataclasses import dataclass

from trilemma.catalogue.economics import Economics
from trilemma.catalogue.offer import ApiPrice
from trilemma.cost.lines import number
from trilemma.cost.money import spread_usd_per_h, tuning_usd
from trilemma.cost.subject import AnyOffer, Subject, name_of
from trilemma.cost.views import Bill
from trilemma.errors import InputError
from trilemma.units import show_usd

MOST_GAIN = 9.0  # ten times the throughput: beyond, it is another engine and not a tuned one
PRECISION = 1e-9  # of the gain in whole units


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """What `weeks` more engineer-weeks have to bring under one offer.

    They cost `usd_per_h` over the model's life. `average_gain` is the share of throughput that pays for them where
    every dollar of hardware and running costs follows the load, `whole_gain` the smallest with which this very fleet,
    in whole replicas and units, costs less by more than the weeks; None where `average_reason` and `whole_reason` say
    why.
    `saves_usd_per_h` is what the whole gain takes off the bill, before the weeks are paid.
    """

    offer: str
    weeks: float
    usd_per_h: float
    average_gain: float | None
    average_reason: str
    whole_gain: float | None
    whole_reason: str
    saves_usd_per_h: float | None


def week_usd_per_h(economics: Economics, weeks: float = 1.0) -> float:
    """Engineer-weeks spread over the months the model stays in production, in $/h."""
    outlay_usd = tuning_usd(weeks, economics.engineer_usd_per_year)
    return spread_usd_per_h(outlay_usd, rate=economics.discount_rate, months=economics.model_life_months)


def worth_of_weeks(subject: Subject, offer: AnyOffer, *, weeks: float = 1.0) -> Worth:
    """The throughput that pays for `weeks` more engineer-weeks. Raises InputError for no weeks."""
    if not weeks > 0:
        raise InputError("weeks", expected="a number above 0", found=repr(weeks))
    usd_per_h = week_usd_per_h(subject.economics, weeks)
    now = subject.bill(offer)
    if isinstance(offer, ApiPrice):
        reason = "an API charges by the token: how fast its GPUs are saves the buyer nothing"
        average: tuple[float | None, str] = (None, reason)
        whole: tuple[float | None, str, float | None] = (None, reason, None)
    else:
        average = _average_gain(now, usd_per_h)
        whole = _whole_gain(subject, offer, now, usd_per_h)
    return Worth(
        offer=name_of(offer),
        weeks=weeks,
        usd_per_h=usd_per_h,
        average_gain=average[0],
        average_reason=average[1],
        whole_gain=whole[0],
        whole_reason=whole[1],
        saves_usd_per_h=whole[2],
    )


def _average_gain(now: Bill, usd_per_h: float) -> tuple[float | None, str]:
    """(Gain, reason): the fleet F shrinks to F / (1 + gain), and F x gain / (1 + gain) is to be what the weeks cost.

    >>> from types import SimpleNamespace as Some
    >>> _average_gain(Some(total_usd_per_h=12.0, engineering_usd_per_h=2.0), 2.0)[0]
    0.25
    """
    fleet = now.total_usd_per_h - now.engineering_usd_per_h
    if usd_per_h >= fleet:
        reason = f"the weeks cost {show_usd(usd_per_h)} an hour, the whole fleet {show_usd(fleet)}"
        return None, reason
    gain = usd_per_h / (fleet - usd_per_h)
    return gain, f"{number(round(100 * gain, 2))}% more throughput saves as much as the weeks cost"


def _whole_gain(
    subject: Subject, offer: AnyOffer, now: Bill, usd_per_h: float
) -> tuple[float | None, str, float | None]:
    """(Gain, reason, $/h saved): bisected, since a bill never rises when its GPUs get faster."""

    def saved(gain: float) -> float:
        return now.total_usd_per_h - subject.bill(offer, load_factor=1 / (1 + gain)).total_usd_per_h

    most = saved(MOST_GAIN)
    if most <= usd_per_h:
        reason = (
            f"even {number(1 + MOST_GAIN)} times the throughput saves {show_usd(most)} an hour, the weeks "
            f"cost {show_usd(usd_per_h)}"
        )
        return None, reason, None
    low, high = 0.0, MOST_GAIN
    while high - low > PRECISION:
        middle = (low + high) / 2
        low, high = (low, middle) if saved(middle) > usd_per_h else (middle, high)
    words = f"{number(round(100 * high, 2))}% more throughput saves {show_usd(saved(high))} an hour"
    return high, words, saved(high)
