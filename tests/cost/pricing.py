"""What the tests of bills share: pricing the fleet with changes, and reckoning a formula."""

import re
from dataclasses import replace

from trilemma.cost.bill import bill


def priced(fleet, **more):
    return bill(**{**vars(fleet), **more})


def priced_as(fleet, kind, usd, **more):
    price = replace(fleet.offer.price, value=usd)
    return priced(fleet, offer=replace(fleet.offer, kind=kind, price=price, **more))


def evaluate(formula):
    """The number a formula's arithmetic gives, its words left out."""
    text = formula.replace(" x ", " * ").replace("$", "").replace(",", "").replace("^", "**")
    return eval(re.sub(r"[A-Za-z][A-Za-z-]*", "", text))


def lines_of(answer):
    return {line.name: line for line in answer.lines}
