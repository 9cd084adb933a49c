"""Month by month: the same money as the bill where nothing grows, whole units when needed, dates of overtaking."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cost.comparison import (
    FEW,
    H100_OFFERS,
    ON_DEMAND,
    OWNED,
    PREPAID,
    RESERVED,
    SPOT,
    api_price,
    offer_of,
    subject_of,
)

from trilemma.catalogue.offer import OfferKind
from trilemma.cost.cash_flow import CashFlow, cash_flow, overtaking, overtakings
from trilemma.errors import InputError

EVERY = (*H100_OFFERS, api_price())
HOURS_PER_MONTH = 730.0


def flow_of(name, outlays, resale_usd=0.0):
    nothing = np.zeros(len(outlays))
    return CashFlow(
        offer=name, lumps_usd=nothing, running_usd=np.array(outlays, float), resale_usd=resale_usd,
        load_factor=nothing + 1, units=nothing,
    )  # fmt: skip


@pytest.mark.parametrize("offer", EVERY, ids=lambda o: getattr(o, "name", "api"))
def test_without_growth_or_interest_the_mean_month_is_the_bill(fleet, offer):
    """The horizon, 36 months, is whole model lives (9) and whole terms (12 and 36)."""
    subject = subject_of(fleet, economics=replace(fleet.economics, discount_rate=0.0, quantisation_weeks=1.0))
    flow = cash_flow(subject, offer)
    assert flow.outlays_usd.mean() / HOURS_PER_MONTH == pytest.approx(subject.bill(offer).total_usd_per_h, rel=1e-12)
    assert flow.levelised_usd_per_h(0.0) == pytest.approx(subject.bill(offer).total_usd_per_h, rel=1e-12)


@given(
    rate=st.floats(0.0, 0.3), years=st.integers(1, 6), lives=st.integers(1, 4), residual=st.floats(0, 1),
    load=st.floats(0.1, 20), upfront=st.floats(0, 1),
)  # fmt: skip
@FEW
def test_without_growth_the_present_value_levelised_is_the_bill(fleet, rate, years, lives, residual, load, upfront):
    economics = replace(
        fleet.economics, discount_rate=rate, horizon_months=12 * years, residual_share=residual,
        model_life_months=12 * years / lives,
    )  # fmt: skip
    subject = subject_of(fleet, economics=economics, load_rps=fleet.schedule.load_rps * load)
    if not all((12 * years * k / lives).is_integer() for k in range(lives)):
        return  # a model that comes in the middle of a month is paid at its start
    yearly = replace(RESERVED, upfront_share=upfront)
    for offer in (OWNED, ON_DEMAND, yearly, SPOT, api_price()):
        expected = subject.bill(offer).total_usd_per_h
        assert cash_flow(subject, offer).levelised_usd_per_h(rate) == pytest.approx(expected, rel=1e-9)


def test_owned_units_are_bought_when_the_load_needs_them_and_sold_by_their_age(fleet):
    economics = replace(fleet.economics, horizon_months=24, model_life_months=24)
    subject = subject_of(fleet, economics=economics)
    flow = cash_flow(subject, OWNED, growth_pct_per_month=5.0)
    units = [subject.bill(OWNED, load_factor=1.05**m).purchase_units for m in range(24)]
    assert flow.units.tolist() == units
    bought = np.diff([0, *units])
    assert bought.sum() == units[-1] > units[0] == 2
    assert flow.lumps_usd[1:].tolist() == pytest.approx((bought[1:] * 285_000 * 1.25).tolist())
    left = [1 - 0.75 * (24 - m) / 24 for m in range(24)]
    assert flow.resale_usd == pytest.approx(285_000 * float(bought @ left))
    assert flow.outlays_usd.sum() == pytest.approx(flow.lumps_usd.sum() + flow.running_usd.sum() - flow.resale_usd)
    assert flow.cumulative_usd[-1] == pytest.approx(flow.outlays_usd.sum())


def test_a_shrinking_load_keeps_what_was_bought_and_gives_back_what_was_rented(fleet):
    subject = subject_of(fleet, load_rps=fleet.schedule.load_rps * 4)
    owned, rented, reserved = (cash_flow(subject, o, growth_pct_per_month=-4.0) for o in (OWNED, ON_DEMAND, RESERVED))
    assert (owned.units == owned.units[0]).all()
    assert rented.units[-1] < rented.units[0]
    assert (np.diff(rented.running_usd) <= 1e-9).all()
    assert reserved.units[:12].tolist() == [reserved.units[0]] * 12  # the term binds
    assert reserved.units[12] == subject.bill(RESERVED, load_factor=0.96**12).purchase_units < reserved.units[0]


def test_a_term_is_paid_upfront_when_it_starts(fleet):
    flow = cash_flow(subject_of(fleet), PREPAID, growth_pct_per_month=4.0)
    subject = subject_of(fleet)
    needed = [subject.bill(PREPAID, load_factor=1.04**m).purchase_units for m in range(36)]
    month_usd = 8 * 1.3 * HOURS_PER_MONTH
    tuning = cash_flow(subject, ON_DEMAND).lumps_usd[0] - 200 * 3.29  # weeks; a reservation benchmarks for nothing
    assert flow.lumps_usd[0] == pytest.approx(needed[0] * month_usd * 36 * 0.25 + tuning)
    step = next(m for m in range(1, 36) if needed[m] > needed[m - 1])
    assert step % 9
    assert flow.lumps_usd[step] == pytest.approx((needed[step] - needed[step - 1]) * month_usd * 36 * 0.25)
    bought = np.diff([0, *needed])
    assert flow.beyond_usd == pytest.approx(float(bought @ np.arange(36)) * month_usd * 0.75)
    upkeep_usd = 0.2 * 300_000 / 12
    assert flow.running_usd[step] == pytest.approx(needed[step] * month_usd * 0.75 + upkeep_usd)


def test_weeks_are_paid_again_with_each_model(fleet):
    flow = cash_flow(subject_of(fleet), api_price())
    assert np.flatnonzero(flow.lumps_usd).tolist() == [0, 9, 18, 27]
    assert flow.lumps_usd[9] == pytest.approx(3 * 300_000 / 52)


def test_the_month_of_overtaking():
    dear_first, even = flow_of("buy", [100, 1, 1, 1, 1, 1]), flow_of("rent", [30, 30, 30, 30, 30, 30])
    found = overtaking(dear_first, even, as_of="2026-11-15")
    assert (found.month, found.date) == (3, "2027-02")  # 103 against 120 at the end of the fourth month
    assert overtaking(dear_first, even).date is None
    assert overtaking(dear_first, even).month == 3
    never = overtaking(even, dear_first)
    assert (never.month, never.date) == (None, None)
    assert "not lower by the end of the horizon of 6 months" in never.reason
    always = overtaking(flow_of("less", [1, 1]), flow_of("more", [2, 2]), as_of="2026-11")
    assert (always.month, always.reason) == (None, "lower from the first month on")


def test_overtaking_is_for_good():
    up_and_down, even = flow_of("a", [1, 3, 0, 0]), flow_of("b", [1.5, 1.5, 0.5, 1.5])
    assert overtaking(up_and_down, even).month == 3  # 1 < 1.5, then 4 > 3, 4 > 3.5, 4 < 5
    sold = overtaking(flow_of("own", [10, 0, 0], resale_usd=6), flow_of("rent", [2, 2, 2]))
    assert sold.month == 2
    assert "when the units are sold" in sold.reason


def test_every_pair_once_and_the_later_winner_first(fleet):
    subject = subject_of(fleet)
    flows = [cash_flow(subject, offer) for offer in EVERY]
    found = overtakings(flows, as_of="2026-11-01")
    assert len(found) == len(EVERY) * (len(EVERY) - 1) // 2
    total = {flow.offer: flow.cumulative_usd[-1] for flow in flows}
    assert all(total[x.first] <= total[x.second] for x in found)
    assert all((x.month is None) == (x.date is None) for x in found)


def test_growth_only_adds(fleet):
    subject = subject_of(fleet)
    for offer in EVERY:
        slow, fast = (cash_flow(subject, offer, growth_pct_per_month=g).running_usd for g in (0.0, 3.0))
        assert (fast >= slow * (1 - 1e-12)).all()


@pytest.mark.parametrize("growth", [-100.0, float("nan"), float("inf")])
def test_a_growth_that_ends_the_world_is_refused(fleet, growth):
    with pytest.raises(InputError, match="growth_pct_per_month"):
        cash_flow(subject_of(fleet), OWNED, growth_pct_per_month=growth)


def test_a_fleet_of_cards_reserved_by_the_year(fleet):
    cards = offer_of(OfferKind.RESERVED, 2.0, unit=1, term_months=12)
    subject = subject_of(fleet)
    flow = cash_flow(subject, cards)
    assert flow.units[0] == subject.bill(cards).purchase_units == 12
