"""Rent beside the hours that serve: starts, charged increments, spot interruptions."""

from dataclasses import replace

import numpy as np
import pytest
from tests.cost.conftest import figure
from tests.cost.pricing import evaluate, lines_of, priced, priced_as

from trilemma.catalogue.offer import OfferKind
from trilemma.cost.offers import charged_beyond
from trilemma.deployment.spec import Parallelism


def scaled_down(fleet):
    """Two nodes of two replicas by day, one by night."""
    return replace(fleet.schedule, held_replicas=np.array([4.0, 2.0]), asked_replicas=np.array([4.0, 1.0]))


def test_instances_are_paid_while_they_start(fleet):
    priced_once = priced(fleet, schedule=scaled_down(fleet))
    line = lines_of(priced_once)["start-up"]
    # 8 GPUs are added once a day, 420 s before they serve.
    assert line.usd_per_h == pytest.approx(8 * 420 / 86_400 * 3.29)
    assert line.split.waste == line.usd_per_h
    assert evaluate(line.formula) == pytest.approx(line.usd_per_h, rel=2e-5)
    assert priced_once.gpus.total == pytest.approx(12)
    slow = replace(fleet.offer, start_s=figure(1200))
    assert lines_of(priced(fleet, offer=slow, schedule=scaled_down(fleet)))["start-up"].usd_per_h == pytest.approx(
        line.usd_per_h * 1200 / 420
    )
    assert "start-up" not in lines_of(priced(fleet))
    assert "start-up" not in lines_of(priced_as(fleet, OfferKind.RESERVED, 2.72, term_months=12))


def test_a_start_longer_than_the_interval_is_told(fleet):
    def late(start_s):
        slow = replace(fleet.offer, start_s=figure(start_s))
        notes = priced(fleet, offer=slow, schedule=scaled_down(fleet)).notes
        return any("longer than the interval" in note for note in notes)

    assert not late(420)
    assert late(13 * 3600)


def test_hours_charged_whole_are_idle_to_their_end(fleet):
    schedule = replace(scaled_down(fleet), seconds=np.array([5.5, 18.5]) * 3600)
    by_hour = replace(fleet.offer, billing_increment_h=1.0)
    line = lines_of(priced(fleet, offer=by_hour, schedule=schedule))["billing increments"]
    # 8 GPUs serve 5.5 h after 7 min of starting: 6 h are charged.
    assert line.usd_per_h == pytest.approx(8 * (0.5 - 7 / 60) / 24 * 3.29)
    assert line.split.idle == line.usd_per_h
    assert evaluate(line.formula) == pytest.approx(line.usd_per_h, rel=2e-5)
    assert "billing increments" not in lines_of(priced(fleet, schedule=schedule))
    assert "billing increments" not in lines_of(priced(fleet, offer=by_hour))


def test_what_is_needed_again_is_charged_no_longer_than_until_then():
    paid, seconds = np.array([8.0, 24.0, 8.0, 16.0]), np.array([600.0, 1800.0, 600.0, 600.0])
    # The second node: held 1800 s and 600 s, ten minutes apart; the third for 1800 s, once an hour.
    second, third = 8 * (600 + 600), 8 * 1800
    assert charged_beyond(paid, seconds, start_s=0.0, increment_s=3600.0) == pytest.approx(second + third)
    assert charged_beyond(paid, seconds, start_s=0.0, increment_s=600.0) == 0


@pytest.mark.parametrize(("unit", "tensor", "stopped"), [(8, 4, 8), (1, 4, 4), (8, 8, 8)])
def test_interruptions_take_spare_capacity(fleet, unit, tensor, stopped):
    fleet.economics = replace(fleet.economics, spot_lost_work_s=60)
    fleet.deployment = replace(fleet.deployment, parallelism=Parallelism(tensor=tensor))
    answer = priced_as(fleet, OfferKind.SPOT, 2.0, purchase_unit_gpus=unit, interruptions_per_h=figure(0.05))
    line = lines_of(answer)["interruptions"]
    # Each instance-hour stops `stopped` GPUs 0.05 times, for 7 minutes of starting and 1 of lost work.
    spare = answer.paid_gpus / unit * 0.05 * stopped * 480 / 3600
    assert line.usd_per_h == pytest.approx(spare * 2.0)
    assert line.split.waste == pytest.approx(line.usd_per_h)
    assert evaluate(line.formula) == pytest.approx(line.usd_per_h, rel=2e-5)
    assert any(f"{spare:.3g} spare GPUs" in note for note in answer.notes)


def test_an_unknown_rate_of_interruptions_is_not_in_the_bill(fleet):
    answer = priced_as(fleet, OfferKind.SPOT, 2.0)
    assert "interruptions" not in lines_of(answer)
    assert any("unavailable" in note for note in answer.notes)
    assert not any("interruption" in note for note in priced(fleet).notes)
