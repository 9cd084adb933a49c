"""$ per million tokens against utilisation: a rate over throughput at 100%, ever dearer towards an idle fleet."""

from dataclasses import replace

import pytest
from tests.cost.comparison import H100_OFFERS, ON_DEMAND, OWNED, api_price, free_of_people, offer_of, subject_of

from trilemma.catalogue.offer import OfferKind
from trilemma.cost.curve import FIELD_RANGE_PCT, SEEN_IN_THE_FIELD, curve
from trilemma.errors import InputError
from trilemma.metrics.activity import Capacity


def test_a_rate_over_peak_throughput_is_the_end_of_the_curve(fleet):
    """$/Mtoken = GPUs x $/GPU-hour / tokens an hour, as benchmark sites reckon it."""
    subject = subject_of(fleet, spare=0, headroom=0.0)
    whole = offer_of(OfferKind.ON_DEMAND, 2.0, unit=4)
    found = curve(subject, whole)
    tokens_per_h = 2.5 * 3600 * fleet.activity.output_tokens_in_limits / fleet.activity.requests  # of 4 GPUs
    assert found.peak_usd_per_mtok == pytest.approx(4 * 2.0 / tokens_per_h * 1e6)
    nobody = curve(replace(subject, economics=free_of_people(subject.economics)), whole)
    assert nobody.points[-1].usd_per_mtok_output == pytest.approx(found.peak_usd_per_mtok)


@pytest.mark.parametrize("offer", H100_OFFERS, ids=lambda o: o.name)
def test_half_the_work_on_the_same_gpus_costs_twice_as_much_a_token(fleet, offer):
    points = curve(subject_of(fleet), offer).points
    assert [p.utilisation_pct for p in points] == list(range(1, 101))
    costs = [p.usd_per_mtok_output for p in points]
    assert costs == sorted(costs, reverse=True)
    assert all(p.without_people_usd_per_mtok < p.usd_per_mtok_output for p in points)
    if offer.kind is not OfferKind.OWNED:  # rent does not know what the GPUs do
        assert costs[24] == pytest.approx(2 * costs[49])
        assert costs[0] == pytest.approx(100 * costs[99])


def test_an_api_has_a_flat_price_and_people_on_top(fleet):
    points = curve(subject_of(fleet), api_price()).points
    prices = [p.without_people_usd_per_mtok for p in points]
    assert prices == pytest.approx([prices[0]] * 100)
    assert points[0].usd_per_mtok_output > points[-1].usd_per_mtok_output > prices[0]


def test_the_field_is_marked_with_its_sources(fleet):
    found = curve(subject_of(fleet), ON_DEMAND)
    assert [p.utilisation_pct for p in found.points if p.in_field_range] == list(range(5, 81))
    assert FIELD_RANGE_PCT == (5.0, 80.0)
    assert dict(found.reported) == SEEN_IN_THE_FIELD
    figures = SEEN_IN_THE_FIELD
    assert [(f.low, f.value, f.high) for f in figures.values()] == [
        (5, 5, 5), (51, 60, 70), (81.6, 81.6, 81.6), (30, 50, 80),
    ]  # fmt: skip
    assert all(f.reference and f.as_of for f in figures.values())


def test_where_the_subject_stands(fleet):
    subject = subject_of(fleet)
    for offer in (OWNED, ON_DEMAND, api_price()):
        own, bill = curve(subject, offer).own, subject.bill(offer)
        assert own.usd_per_mtok_output == pytest.approx(bill.usd_per_mtok_output)
    assert curve(subject, OWNED).own.utilisation_pct == pytest.approx(100 * 1.5 / (3 * 2.5))
    assert curve(subject, ON_DEMAND).own.utilisation_pct == pytest.approx(
        100 * 1.5 / (2.5 * 2.5)
    )  # 3 by day, 2 by night


def test_without_a_saturation_busy_gpus_stand_in(fleet):
    subject = subject_of(fleet, capacity=Capacity(saturation_rps=None, knee_rps=1.8))
    own = curve(subject, OWNED).own
    assert own.utilisation_pct == pytest.approx(100 * 1.5 / (3 * 4 / 2.5))  # 2.5 GPU-seconds a request
    idle = replace(fleet.activity, prefill_gpu_s=0.0, decode_gpu_s=0.0)
    with pytest.raises(InputError, match="saturation_rps"):
        curve(replace(subject, activity=idle), OWNED)


@pytest.mark.parametrize("percents", [[0.0], [101.0], []])
def test_percentages_are_percentages(fleet, percents):
    with pytest.raises(InputError, match="percents"):
        curve(subject_of(fleet), OWNED, percents=percents)
