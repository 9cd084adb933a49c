"""What a losing offer would have to charge: at that price its bill is the winner's."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cost.comparison import FEW, H100_OFFERS, ON_DEMAND, OWNED, RESERVED, SPOT, api_price, offer_of, subject_of

from trilemma.catalogue.offer import ApiPrice, OfferKind
from trilemma.cost.negotiation import negotiation, price_at_total
from trilemma.cost.subject import name_of


def at_price(offer, factor):
    if isinstance(offer, ApiPrice):
        sides = {n: getattr(offer, n) for n in ("input_usd_per_mtok", "output_usd_per_mtok")}
        return replace(offer, **{n: replace(f, value=f.value * factor) for n, f in sides.items()})
    return replace(offer, price=replace(offer.price, value=offer.price.value * factor))


@given(load=st.floats(0.1, 30), rent=st.floats(1.0, 6.0))
@FEW
def test_at_the_asked_price_the_loser_costs_what_the_winner_does(fleet, load, rent):
    subject = subject_of(fleet, load_rps=fleet.schedule.load_rps * load)
    offers = (OWNED, offer_of(OfferKind.ON_DEMAND, rent), RESERVED, SPOT, api_price(4.0, 12.0))
    best = min(subject.bill(o).total_usd_per_h for o in offers)
    asks = {x.offer: x for x in negotiation(subject, offers)}
    assert len(asks) == len(offers) - 1
    for offer in offers:
        found = asks.get(name_of(offer))
        if found is None or found.factor is None:
            continue
        assert found.factor <= 1
        assert found.price_usd == pytest.approx(found.factor * found.price_now_usd)
        assert subject.bill(at_price(offer, found.factor)).total_usd_per_h == pytest.approx(best)
        said = [float(x.replace(",", "")) for x in re.findall(r"\$([\d,]+(?:\.\d+)?)", found.sentence)]
        price = offer.output_usd_per_mtok if isinstance(offer, ApiPrice) else offer.price
        assert 0 < said[-1] <= found.factor * price.value * (1 + 1e-9)


def test_the_sentences(fleet):
    subject = subject_of(fleet, load_rps=fleet.schedule.load_rps * 10)
    offers = (*H100_OFFERS[:4], offer_of(OfferKind.SPOT, 1.0), api_price(4.0, 12.0))
    said = {x.offer: x.sentence for x in negotiation(subject, offers)}
    assert re.fullmatch(r"buy at or below \$[\d,]+/unit of 8 GPUs", said["h100/owned"])
    assert re.fullmatch(r"rent at or below \$\d\.\d\d/GPU-h", said["h100/on-demand"])
    assert re.fullmatch(r"reserve at or below \$\d\.\d\d/GPU-h", said["h100/reserved"])
    assert re.fullmatch(
        r"input at \$\d\.\d\d and output at \$\d\.\d\d per million tokens or below, 0\.\d+ times today's",
        said["api llama-70b"],
    )


def test_where_no_price_would_do(fleet):
    """Owned hardware still burns energy, fills racks and takes staff when it is a present."""
    subject = subject_of(fleet)
    asks = {x.offer: x for x in negotiation(subject, (OWNED, offer_of(OfferKind.SPOT, 0.01), ON_DEMAND))}
    assert (asks["h100/owned"].price_usd, asks["h100/owned"].factor) == (None, None)
    assert asks["h100/owned"].sentence.startswith("no price would do: without it $")
    free = negotiation(subject, (offer_of(OfferKind.ON_DEMAND, 0.0), api_price(0.0, 0.0)))
    assert all("nothing of it is paid by price" in x.sentence for x in free)


def test_alone_nobody_loses(fleet):
    assert negotiation(subject_of(fleet), [OWNED]) == ()
    assert negotiation(subject_of(fleet), []) == ()
    twins = negotiation(subject_of(fleet), [ON_DEMAND, replace(ON_DEMAND, name="twin")])
    assert [(x.offer, x.winner, x.factor) for x in twins] == [("twin", "h100/on-demand", pytest.approx(1.0))]


def test_price_at_total_is_linear(fleet):
    bill = subject_of(fleet).bill(RESERVED)
    prices = [price_at_total(bill, price=2.72, total_usd_per_h=x) for x in (40.0, 50.0, 60.0)]
    assert prices[1] - prices[0] == pytest.approx(prices[2] - prices[1])
