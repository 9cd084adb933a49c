"""Capacity over the day: what is asked for, held and paid in each hour, and what scaling down saves under each offer.

An hour given back saves its dollars where hours are rented, only energy where the node is owned, nothing where it is
reserved. What it takes to come back (time to start, charged increments) is a matter of the whole day and stands apart.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trilemma.cost.lines import Dimension
from trilemma.cost.subject import AnyOffer, Subject, name_of
from trilemma.cost.views import Bill
from trilemma.metrics.activity import Schedule
from trilemma.units import SECONDS_PER_H

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OfferDay:
    """One offer over k intervals, USD of hardware, rent and running costs in each, the people left out.

    `paid_gpus` and `usd` (k,) are those of a fleet that follows what is asked for, `peak_paid_gpus` and `peak_usd` of
    one that holds the peak. `changes_usd` is what following costs beside the intervals: starts, increments charged
    to their end.
    """

    offer: str
    kind: str
    paid_gpus: FloatArray
    usd: FloatArray
    peak_paid_gpus: FloatArray
    peak_usd: FloatArray
    changes_usd: float

    @property
    def saved_usd(self) -> FloatArray:
        """(k,) what following saves in each interval."""
        return self.peak_usd - self.usd

    @property
    def saved_share(self) -> float:
        """Of the period's dollars at the peak, what following saves after its own cost; may be below 0."""
        peak = math.fsum(self.peak_usd.tolist())
        return (math.fsum(self.saved_usd.tolist()) - self.changes_usd) / peak if peak > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Day:
    """The period in k intervals: seconds (k,), load_rps (k,), asked_replicas (k,) and held_replicas (k,) of a fleet
    that follows them, `peak_replicas` of one that does not; and each offer's money."""

    seconds: FloatArray
    load_rps: FloatArray
    asked_replicas: FloatArray
    held_replicas: FloatArray
    peak_replicas: int
    offers: tuple[OfferDay, ...]


def capacity_over_day(subject: Subject, offers: Sequence[AnyOffer]) -> Day:
    """Every interval of the subject's period under every offer. Raises InputError for what a bill refuses."""
    follows, stays = (subject.schedule(scales_down=down) for down in (True, False))
    return Day(
        seconds=follows.seconds,
        load_rps=follows.load_rps,
        asked_replicas=follows.asked_replicas,
        held_replicas=follows.held_replicas,
        peak_replicas=round(float(stays.held_replicas.max())),
        offers=tuple(_offer_day(subject, offer, follows, stays) for offer in offers),
    )


def _offer_day(subject: Subject, offer: AnyOffer, follows: Schedule, stays: Schedule) -> OfferDay:
    peak = round(float(stays.held_replicas.max()))
    whole = subject.bill_of(offer, follows, bought=peak)
    paid, usd = _intervals(subject, offer, follows, peak)
    peak_paid, peak_usd = _intervals(subject, offer, stays, peak)
    changes_usd = _machines_usd_per_h(whole) * follows.period_s / SECONDS_PER_H - math.fsum(usd.tolist())
    return OfferDay(
        offer=name_of(offer),
        kind=whole.kind,
        paid_gpus=paid,
        usd=usd,
        peak_paid_gpus=peak_paid,
        peak_usd=peak_usd,
        changes_usd=changes_usd if abs(changes_usd) > 1e-9 * math.fsum(usd.tolist()) else 0.0,
    )


def _intervals(subject: Subject, offer: AnyOffer, schedule: Schedule, peak: int) -> tuple[FloatArray, FloatArray]:
    """(k,) GPUs paid and (k,) USD of machines in each interval, priced as if it lasted for ever."""
    known: dict[tuple[float, ...], tuple[float, float]] = {}
    rows = zip(schedule.load_rps, schedule.held_replicas, schedule.asked_replicas, strict=True)
    keys = [tuple(map(float, row)) for row in rows]
    for key in keys:
        if key not in known:
            load, held, asked = (np.array([x]) for x in key)
            one = Schedule(
                seconds=np.array([SECONDS_PER_H]), load_rps=load, held_replicas=held, asked_replicas=asked, reason=""
            )
            bill = subject.bill_of(offer, one, bought=peak)
            known[key] = bill.paid_gpus, _machines_usd_per_h(bill)
    paid, usd_per_h = (np.array([known[key][i] for key in keys]) for i in (0, 1))
    return paid, usd_per_h * schedule.seconds / SECONDS_PER_H


def _machines_usd_per_h(bill: Bill) -> float:
    """Capital and operational money."""
    return bill.row(Dimension.CAPITAL).total + bill.row(Dimension.OPERATIONAL).total
