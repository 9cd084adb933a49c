"""Annuities against their definition: what is paid over the years is worth the outlay today."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilemma.cost.money import annuity_factor, annuity_usd_per_h, discount, spread_usd_per_h, upfront_factor
from trilemma.units import HOURS_PER_YEAR


@given(rate=st.floats(0.0, 0.5), years=st.integers(1, 12), price=st.floats(1e3, 1e7), left=st.floats(0, 1))
def test_payments_and_residual_are_worth_the_price_today(rate, years, price, left):
    yearly = annuity_usd_per_h(price, uplift=0.25, residual_share=left, rate=rate, years=years) * HOURS_PER_YEAR
    worth = sum(yearly / (1 + rate) ** year for year in range(1, years + 1)) + left * price * discount(rate, years)
    assert worth == pytest.approx(1.25 * price, rel=1e-9)


@given(rate=st.floats(1e-15, 1e-6), years=st.floats(0.1, 20))
def test_a_rate_near_zero_meets_the_even_spread(rate, years):
    assert annuity_factor(rate, years) == pytest.approx(annuity_factor(0.0, years), rel=1e-4)


@given(rate=st.floats(0, 0.4), more=st.floats(0, 0.2), months=st.floats(1, 120))
def test_dearer_money_never_makes_an_outlay_cheaper(rate, more, months):
    low, high = (spread_usd_per_h(1000, rate=r, months=months) for r in (rate, rate + more))
    assert high >= low * (1 - 1e-12)
    assert low >= 1000 / (months / 12 * HOURS_PER_YEAR) * (1 - 1e-12)


@given(share=st.floats(0, 1), rate=st.floats(0, 0.4), months=st.integers(1, 84))
def test_paying_upfront_is_never_cheaper_at_the_same_price(share, rate, months):
    assert upfront_factor(share, rate=rate, term_months=months) >= 1 - 1e-12


def test_a_prepaid_year_costs_a_year_of_interest():
    assert upfront_factor(1.0, rate=0.09, term_months=12) == pytest.approx(1.09)


@pytest.mark.parametrize(("rate", "years"), [(-0.1, 3), (0.1, 0), (0.1, -1)])
def test_no_annuity_without_years_or_with_a_negative_rate(rate, years):
    with pytest.raises(ValueError, match="annuity"):
        annuity_factor(rate, years)
