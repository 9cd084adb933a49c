"""Another week pays for itself on a large fleet and not on a small one; in whole units by steps."""

from dataclasses import replace

import numpy as np
import pytest
from tests.cost.comparison import (
    H100_OFFERS,
    ON_DEMAND,
    OWNED,
    RESERVED,
    api_price,
    free_of_people,
    job_of,
    offer_of,
    subject_of,
)

from trilemma.catalogue.offer import OfferKind
from trilemma.cost.effort import MOST_GAIN, week_usd_per_h, worth_of_weeks
from trilemma.errors import InputError


def large(fleet, times=40.0):
    return subject_of(fleet, load_rps=fleet.schedule.load_rps * times)


def test_a_week_by_hand(fleet):
    """$300,000 a year over 52 weeks, repaid within nine months at 9%."""
    per_h = 300_000 / 52 * 0.09 / (1 - 1.09**-0.75) / 8760
    assert week_usd_per_h(fleet.economics) == pytest.approx(per_h)
    assert week_usd_per_h(fleet.economics, 3.0) == pytest.approx(3 * per_h)
    line = next(x for x in subject_of(fleet).bill(ON_DEMAND).lines if x.name == "tuning")  # two weeks
    assert line.usd_per_h == pytest.approx(2 * per_h)


@pytest.mark.parametrize("offer", H100_OFFERS, ids=lambda o: o.name)
def test_the_whole_gain_pays_and_a_little_less_does_not(fleet, offer):
    subject = large(fleet)
    found = worth_of_weeks(subject, offer, weeks=4)
    now = subject.bill(offer).total_usd_per_h

    def saved(gain):
        return now - subject.bill(offer, load_factor=1 / (1 + gain)).total_usd_per_h

    assert found.whole_gain is not None
    assert saved(found.whole_gain) == found.saves_usd_per_h > found.usd_per_h
    assert saved(found.whole_gain - 2e-9) <= found.usd_per_h
    assert max(saved(g) for g in np.linspace(0, found.whole_gain - 2e-9, 50)) <= found.usd_per_h


def test_on_average_the_fleet_shrinks_by_the_gain(fleet):
    subject = large(fleet)
    found = worth_of_weeks(subject, ON_DEMAND)
    bill = subject.bill(ON_DEMAND)
    hardware = bill.total_usd_per_h - bill.engineering_usd_per_h
    assert hardware / (1 + found.average_gain) + found.usd_per_h == pytest.approx(hardware)


def test_a_gain_by_steps_is_that_of_the_next_replica(fleet):
    """Ten replicas of 1.8 requests/s without headroom: one fewer takes 1/9 more throughput of the others."""
    fleet.economics = replace(free_of_people(fleet.economics), engineer_usd_per_year=300_000.0, upkeep_fte=0.0)
    subject = subject_of(
        fleet, seconds=np.array([3600.0]), load_rps=np.array([18.0]), headroom=0.0, spare=0, replicas=None
    )
    offer = offer_of(OfferKind.ON_DEMAND, 3.0, unit=4)
    assert subject.replicas_at() == 10
    found = worth_of_weeks(subject, offer)  # $12 an hour a replica, a week costs less than one
    assert found.usd_per_h < 12
    assert found.whole_gain == pytest.approx(1 / 9, abs=1e-8)
    assert found.saves_usd_per_h == pytest.approx(12.0)
    assert found.average_gain < found.whole_gain


def test_small_fleets_do_not_pay_for_weeks_and_large_ones_do(fleet):
    gains = [worth_of_weeks(large(fleet, times), ON_DEMAND, weeks=6).average_gain for times in (10, 100, 1000)]
    assert gains == sorted(gains, reverse=True)
    small = worth_of_weeks(subject_of(fleet), RESERVED, weeks=500)
    assert small.average_gain is None
    assert "the whole fleet" in small.average_reason
    assert small.whole_gain is None
    assert f"even {1 + MOST_GAIN:.0f} times the throughput" in small.whole_reason


def test_more_weeks_need_more(fleet):
    found = [worth_of_weeks(large(fleet), OWNED, weeks=n) for n in (1, 2, 5, 10)]
    assert [x.average_gain for x in found] == sorted(x.average_gain for x in found)
    assert [x.whole_gain for x in found] == sorted(x.whole_gain for x in found)


def test_an_api_saves_nothing(fleet):
    found = worth_of_weeks(subject_of(fleet), api_price())
    assert (found.average_gain, found.whole_gain, found.saves_usd_per_h) == (None, None, None)
    assert "by the token" in found.whole_reason


def test_a_fixed_fleet_shrinks_too(fleet):
    found = worth_of_weeks(job_of(fleet, replicas=40), OWNED)
    assert found.whole_gain is not None


@pytest.mark.parametrize("weeks", [0.0, -1.0, float("nan")])
def test_no_weeks_are_refused(fleet, weeks):
    with pytest.raises(InputError, match="weeks"):
        worth_of_weeks(subject_of(fleet), OWNED, weeks=weeks)
