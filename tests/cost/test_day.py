"""Capacity over the day: hours that add up to the bill, and what a quiet night gives back under each offer."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cost.comparison import FEW, H100_OFFERS, ON_DEMAND, OWNED, RESERVED, api_price, job_of, offer_of, subject_of

from trilemma.catalogue.offer import OfferKind
from trilemma.cost.day import capacity_over_day
from trilemma.cost.fleet import CHARGES_ALL_DAY
from trilemma.cost.lines import Dimension

HOURS = np.full(24, 3600.0)


def day_of(fleet, load_rps, **more):
    return subject_of(fleet, seconds=HOURS, load_rps=np.asarray(load_rps, float), spare=0, headroom=0.0, **more)


def night(fleet, replicas):
    """`replicas` by day and one from 2 to 6; each takes 1.8 requests/s."""
    load = np.full(24, 1.8 * replicas)
    load[2:6] = 1.0
    return day_of(fleet, load)


@given(replicas=st.integers(1, 40))
@FEW
def test_four_hours_of_one_replica_give_back_a_sixth_at_most(fleet, replicas):
    """(4/24) (N - 1) / N of the paid hours on demand, energy alone where owned, nothing where reserved."""
    subject = night(fleet, replicas)
    singly = offer_of(OfferKind.ON_DEMAND, 3.0, unit=4)
    rented, owned, reserved = capacity_over_day(subject, (singly, OWNED, RESERVED)).offers
    law = (4 / 24) * (replicas - 1) / replicas
    assert rented.saved_usd.sum() / rented.peak_usd.sum() == pytest.approx(law)
    assert 1 - rented.paid_gpus.sum() / rented.peak_paid_gpus.sum() == pytest.approx(law)
    assert rented.saved_share <= law <= 1 / 6
    assert (reserved.saved_usd == 0).all()
    assert reserved.saved_share == reserved.changes_usd == 0
    assert (owned.paid_gpus == owned.peak_paid_gpus).all()
    follows, stays = (subject.schedule(scales_down=down) for down in (True, False))
    energy = [
        24 * next(x.usd_per_h for x in subject.bill_of(OWNED, s, bought=replicas).lines if x.name == "energy")
        for s in (stays, follows)
    ]
    assert owned.saved_usd.sum() == pytest.approx(energy[0] - energy[1], abs=1e-9)
    assert owned.saved_share < 0.02


@given(load=st.lists(st.floats(0.0, 12.0), min_size=24, max_size=24), all_at_once=st.booleans())
@FEW
def test_the_hours_add_up_to_the_bill(fleet, load, all_at_once):
    subject = day_of(fleet, load, replicas=4 if all_at_once else None)
    day = capacity_over_day(subject, (*H100_OFFERS, api_price(4.0, 12.0)))
    for offer, one in zip((*H100_OFFERS, api_price(4.0, 12.0)), day.offers, strict=True):
        bill = subject.bill(offer)
        machines = 24 * (bill.row(Dimension.CAPITAL).total + bill.row(Dimension.OPERATIONAL).total)
        stays = one.kind in {kind.value for kind in CHARGES_ALL_DAY}
        assert (one.peak_usd.sum() if stays else one.usd.sum() + one.changes_usd) == pytest.approx(machines)
        assert (one.saved_usd >= -1e-9).all()
        assert one.changes_usd >= 0
        if one.kind != "api":
            assert (one.paid_gpus >= day.held_replicas * 4 - 1e-9).all()
            assert (one.peak_paid_gpus >= one.paid_gpus).all()


def test_an_hour_by_hand(fleet):
    day = capacity_over_day(night(fleet, 5), (ON_DEMAND,))
    assert day.asked_replicas.tolist() == day.held_replicas.tolist() == [5, 5, 1, 1, 1, 1] + [5] * 18
    assert day.peak_replicas == 5
    rented = day.offers[0]
    assert rented.paid_gpus[[0, 3]].tolist() == [24.0, 8.0]  # two replicas of 4 fill a node
    assert rented.usd[[0, 3]].tolist() == pytest.approx([24 * 3.29, 8 * 3.29])
    assert rented.saved_usd[[0, 3]].tolist() == pytest.approx([0.0, 16 * 3.29])


def test_coming_back_costs_its_starts(fleet):
    subject = night(fleet, 5)
    slow = replace(ON_DEMAND, name="slow")
    usual = capacity_over_day(subject, (ON_DEMAND,)).offers[0]
    rates = replace(subject.economics, instance_start_s=1200.0)
    later = capacity_over_day(replace(subject, economics=rates), (slow,)).offers[0]
    assert usual.changes_usd == pytest.approx(16 * 3.29 * 420 / 3600)
    assert later.changes_usd == pytest.approx(16 * 3.29 * 1200 / 3600)
    assert later.saved_share < usual.saved_share


def test_a_job_gives_its_pause_back(fleet):
    day = capacity_over_day(job_of(fleet), (ON_DEMAND, RESERVED))
    assert day.held_replicas.tolist() == [3, 0]
    rented, reserved = day.offers
    assert rented.usd[1] == 0
    assert rented.saved_usd[1] == pytest.approx(16 * 3.29 * 22)
    assert reserved.usd.sum() == pytest.approx(16 * 2.72 * 24)
