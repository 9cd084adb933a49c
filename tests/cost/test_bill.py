"""The bill of one small fleet: its lines, what is unmeasured, what binds beyond the horizon, what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from tests.cost.conftest import figure
from tests.cost.pricing import evaluate, priced, priced_as

from trilemma.catalogue.figure import Figure, Source
from trilemma.catalogue.offer import OfferKind
from trilemma.cost.lines import Dimension, Line
from trilemma.cost.negotiation import price_at_total
from trilemma.cost.sizing import sized_schedule
from trilemma.cost.use import ByUse
from trilemma.deployment.spec import Parallelism
from trilemma.errors import InputError
from trilemma.metrics.activity import BusyAt, Capacity

KINDS = [(OfferKind.OWNED, 285_000.0), (OfferKind.ON_DEMAND, 3.29), (OfferKind.RESERVED, 2.72), (OfferKind.SPOT, 2.27)]


@pytest.mark.parametrize(("kind", "usd"), KINDS)
@pytest.mark.parametrize("rate", [0.0, 0.09])
def test_every_formula_gives_its_amount(fleet, kind, usd, rate):
    fleet.economics = replace(fleet.economics, discount_rate=rate)
    lines = priced_as(fleet, kind, usd, term_months=12, upfront_share=0.25).lines
    for line in lines:
        assert evaluate(line.formula) == pytest.approx(line.usd_per_h, rel=2e-5), line
        assert line.source
    assert len({line.name for line in lines}) == len(lines)


def test_lines_of_an_owned_node_by_hand(fleet):
    lines = {line.name: line.usd_per_h for line in priced_as(fleet, OfferKind.OWNED, 285_000.0).lines}
    assert lines["hardware"] == pytest.approx((356_250 - 71_250 * 1.09**-3) * 0.09 / (1 - 1.09**-3) / 8760)
    assert lines["colocation"] == pytest.approx(10.2 * 184 / 730)
    assert lines["maintenance"] == pytest.approx(356_250 * 0.05 / 8760)
    assert lines["insurance"] == pytest.approx(356_250 * 0.01 / 8760)
    assert lines["operations staff"] == pytest.approx(0.02 * 300_000 / 8760)
    assert lines["upkeep"] == pytest.approx(0.2 * 300_000 / 8760)
    # 0.5 prefill and 2 decode GPU-seconds a request: 1 and 4 GPUs at 2 requests/s, half of it at 1.
    busy_w = (1 * 660 + 4 * 480) * 0.75
    idle_w = (8 - 5 * 0.75) * 110
    assert lines["energy"] == pytest.approx((2200 + busy_w + idle_w) / 1000 * 1.35 * 0.087)


def test_use_view_by_hand(fleet):
    gpus = priced(fleet).gpus
    # Loads 2 and 1, X_sat 2.5, X_knee 1.8, 4 GPUs a replica: 0.8 and 0.4 replicas of work, 99% of it useful.
    assert gpus.useful == pytest.approx(0.6 * 4 * 0.99)
    assert gpus.waste == pytest.approx(0.6 * 4 * 0.01)
    assert gpus.latency == pytest.approx((1.5 / 1.8 - 0.6) * 4)
    assert gpus.reserve == pytest.approx((1.5 - 1.5 / 1.8) * 4)
    assert gpus.idle == pytest.approx(0.5 * 4)
    assert gpus.stranded == 0


def test_engineering_is_outside_opportunity_and_waste_where_nothing_is_useful(fleet):
    good = priced(fleet)
    assert good.row(Dimension.ENGINEERING).useful == pytest.approx(good.engineering_usd_per_h)
    assert good.opportunity_usd_per_h == pytest.approx(sum(list(good.use_view.values())[1:]))
    bad = priced(
        fleet,
        activity=replace(
            fleet.activity, useful_tokens=0, late_tokens=9_960_000, prompt_tokens_in_limits=0,
            output_tokens_in_limits=0, requests_in_limits=0,
        ),
    )  # fmt: skip
    assert bad.use_view["useful"] == 0
    assert bad.row(Dimension.ENGINEERING).waste == pytest.approx(bad.engineering_usd_per_h)
    assert bad.opportunity_usd_per_h == pytest.approx(bad.operational_usd_per_h)
    assert bad.usd_per_mtok_output is None
    assert bad.usd_per_mtok_by_gpu_time is None
    assert bad.usd_per_1k_requests_in_limits is None
    assert bad.energy_wh_per_mtok_output is None
    assert bad.usd_per_1k_requests == pytest.approx(good.usd_per_1k_requests)


def test_without_a_knee_headroom_is_whole(fleet):
    measured = priced(fleet)
    blind = priced(fleet, capacity=Capacity(saturation_rps=2.5, knee_rps=None))
    assert blind.use_view == pytest.approx(measured.use_view)
    assert blind.headroom_latency_usd_per_h is None
    assert blind.headroom_reserve_usd_per_h is None
    assert any("knee is unmeasured" in note for note in blind.notes)


def test_without_saturation_busy_time_stands_in(fleet):
    blind = priced(fleet, capacity=Capacity(saturation_rps=None, knee_rps=None))
    # 5 and 2.5 busy GPUs; at night only one replica of 4 was asked for.
    assert blind.gpus.useful + blind.gpus.waste == pytest.approx(3.75)
    assert blind.gpus.headroom == pytest.approx((3 + 1.5) / 2)
    assert any("saturation is unmeasured" in note for note in blind.notes)


def test_a_knee_of_zero_makes_all_headroom_the_price_of_latency(fleet):
    nothing_holds = priced(fleet, capacity=Capacity(saturation_rps=2.5, knee_rps=0.0))
    assert nothing_holds.headroom_reserve_usd_per_h == pytest.approx(0)
    assert nothing_holds.headroom_latency_usd_per_h == pytest.approx(nothing_holds.use_view["headroom"])


def test_a_knee_above_saturation_is_taken_as_saturation(fleet):
    noisy = priced(fleet, capacity=Capacity(saturation_rps=2.5, knee_rps=2.6))
    assert noisy.headroom_latency_usd_per_h == pytest.approx(0)
    assert any("above saturation" in note for note in noisy.notes)


def test_overload_serves_what_saturates_and_says_so(fleet):
    over = priced(fleet, schedule=replace(fleet.schedule, load_rps=np.array([10.0, 5.0])))
    assert over.volumes.requests_per_h == pytest.approx(5.0 * 3600)
    assert over.use_view["headroom"] == pytest.approx(0)
    # Work occupies both replicas at night too, though the policy asked for one: nothing is idle.
    assert over.use_view["idle"] == pytest.approx(0)
    assert any("33.3% of the load" in note for note in over.notes)
    assert any("the run 1" in note for note in over.notes)


def test_an_hour_without_requests_is_priced(fleet):
    silent = replace(
        fleet.activity, requests=0, requests_in_limits=0, useful_tokens=0, late_tokens=0, recomputed_tokens=0,
        prefill_gpu_s=0, decode_gpu_s=0, prompt_tokens_in_limits=0, output_tokens_in_limits=0, rate_rps=0,
    )  # fmt: skip
    night = priced(fleet, activity=silent, schedule=replace(fleet.schedule, load_rps=np.zeros(2)))
    assert night.operational_usd_per_h == pytest.approx(8 * 3.29)
    assert night.prefill_share is None
    assert night.use_view["idle"] + night.use_view["headroom"] == pytest.approx(8 * 3.29)


def test_energy_per_token_counts_the_meter(fleet):
    answer = priced(fleet)
    assert answer.facility_watts == pytest.approx(answer.it_watts * 1.35)
    per_mtok = answer.facility_watts * 1e6 / answer.volumes.output_tokens_per_h
    assert answer.energy_wh_per_mtok_output == pytest.approx(per_mtok)


def test_a_gpu_without_a_model_draws_less_than_an_idle_one(fleet):
    quiet = replace(fleet.schedule, load_rps=np.zeros(2), asked_replicas=np.ones(2))
    loaded = priced(fleet, schedule=quiet)
    alone = priced(fleet, schedule=replace(quiet, held_replicas=np.ones(2)))
    assert loaded.it_watts == pytest.approx(2200 + 8 * 110)
    assert alone.it_watts == pytest.approx(2200 + 4 * 110 + 4 * 35)
    assert priced(
        fleet, schedule=replace(quiet, held_replicas=np.ones(2)), unloaded_idle_share=1.0
    ).it_watts == pytest.approx(loaded.it_watts)


def test_replicas_can_be_bought_ahead_and_never_fall_below_the_peak(fleet):
    one = replace(fleet.schedule, held_replicas=np.ones(2), asked_replicas=np.ones(2), load_rps=np.ones(2))
    owned = replace(fleet.offer, kind=OfferKind.OWNED, price=replace(fleet.offer.price, value=285_000.0))
    assert priced(fleet, offer=owned, schedule=one, replicas=6).purchase_units == 3
    assert priced(fleet, offer=owned, replicas=1).purchase_units == 1
    many = replace(fleet.schedule, held_replicas=np.array([5.0, 2.0]))
    assert priced(fleet, offer=owned, schedule=many, replicas=1).purchase_units == 3


def test_a_replica_that_spans_nodes_takes_more_weeks(fleet):
    wide = replace(fleet.deployment, parallelism=Parallelism(tensor=8, pipeline=2))
    weeks = [
        next(line.formula for line in priced(fleet, deployment=d).lines if line.name == "tuning")
        for d in (fleet.deployment, wide)
    ]
    assert weeks[0].startswith("2 weeks")
    assert weeks[1].startswith("10 weeks")


def test_benchmark_hours_cost_energy_rent_or_nothing(fleet):
    def cost(kind, usd):
        lines = priced_as(fleet, kind, usd, term_months=12).lines
        return next((line.usd_per_h for line in lines if line.name == "benchmarking"), None)

    assert cost(OfferKind.RESERVED, 2.72) is None
    rent, energy = cost(OfferKind.ON_DEMAND, 3.29), cost(OfferKind.OWNED, 285_000.0)
    assert energy / rent == pytest.approx(0.66 * 1.35 * 0.087 / 3.29)


@pytest.mark.parametrize(
    ("kind", "usd", "more", "note"),
    [
        (OfferKind.OWNED, 285_000.0, {}, "network and storage included"),
        (OfferKind.RESERVED, 2.72, {"term_months": 60}, "$381,235 falls after it"),
        (OfferKind.RESERVED, 2.72, {"term_months": 12}, "the reserved term is 12 of 36 months: renewed"),
        (OfferKind.SPOT, 2.27, {}, "spot interruptions is unavailable for h100-on-demand"),
        (OfferKind.SPOT, 2.27, {"interruptions_per_h": figure(0.05)}, "0.05 interruptions per instance-hour"),
        (OfferKind.ON_DEMAND, 3.29, {}, "electricity is inside the rent; energy and carbon shown are not billed"),
        (OfferKind.ON_DEMAND, 3.29, {}, "two halves of a day"),
        (OfferKind.ON_DEMAND, 3.29, {}, "known as guess: tuning weeks"),
    ],
)
def test_notes(fleet, kind, usd, more, note):
    assert any(note in text for text in priced_as(fleet, kind, usd, **more).notes)


def test_an_old_price_is_used_with_a_warning_naming_its_date(fleet):
    def warnings(as_of):
        return [note for note in priced(fleet, as_of=as_of).notes if "days before" in note]

    assert warnings(None) == []
    assert warnings("2026-11-01") == []
    assert warnings("2027-04-01") == ["h100-on-demand: price of 2026-09, 198 days before 2027-04-01"]
    with pytest.raises(InputError, match="as_of"):
        warnings("last week")


def test_an_old_tariff_is_named_where_it_is_paid(fleet):
    tariff = Figure(value=0.087, low=0.087, high=0.087, source=Source.MEASURED, as_of="2025-06", reference="test")
    fleet.economics = replace(fleet.economics, figures={"electricity_usd_per_kwh": tariff})
    notes = priced_as(fleet, OfferKind.OWNED, 285_000.0).notes
    assert not any("days before" in note for note in notes)
    fleet.offer = replace(fleet.offer, kind=OfferKind.OWNED)
    assert any("electricity_usd_per_kwh: price of 2025-06" in n for n in priced(fleet, as_of="2026-11-01").notes)


def test_the_weakest_source_is_named(fleet):
    assert priced(fleet).source is Source.GUESS
    effort = {
        topology: replace(
            work, weeks=replace(work.weeks, source=Source.MEASURED),
            upkeep_scale=replace(work.upkeep_scale, source=Source.MEASURED),
        )
        for topology, work in fleet.engine.effort.items()
    }  # fmt: skip
    assert priced(fleet, engine=replace(fleet.engine, effort=effort)).source is Source.VENDOR


@pytest.mark.parametrize(("kind", "usd"), KINDS)
def test_the_price_that_meets_a_total(fleet, kind, usd):
    answer = priced_as(fleet, kind, usd, term_months=12, upfront_share=0.5)
    target = answer.total_usd_per_h * 0.8
    asked = price_at_total(answer, price=usd, total_usd_per_h=target)
    assert priced_as(fleet, kind, asked, term_months=12, upfront_share=0.5).total_usd_per_h == pytest.approx(target)
    assert price_at_total(answer, price=usd, total_usd_per_h=answer.engineering_usd_per_h / 2) is None


def test_a_sized_schedule_scales_down_only_where_told(fleet):
    day = {
        "seconds": np.full(3, 3600.0), "load_rps": np.array([20.0, 5.0, 0.0]), "replica_capacity_rps": 1.8,
        "headroom": 0.25, "spare": 1, "reason": "a day",
    }  # fmt: skip
    down, flat = (sized_schedule(scales_down=scales, **day) for scales in (True, False))
    assert down.asked_replicas.tolist() == [15, 5, 1]
    assert down.held_replicas.tolist() == [15, 5, 1]
    assert flat.held_replicas.tolist() == [15, 15, 15]
    assert priced(fleet, schedule=down).total_usd_per_h < priced(fleet, schedule=flat).total_usd_per_h


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("price", -1.0, "offers.h100-on-demand.price"),
        ("price", float("nan"), "offers.h100-on-demand.price"),
        ("purchase_unit_gpus", 0, "offers.h100-on-demand.purchase_unit_gpus"),
        ("currency", "EUR", "offers.h100-on-demand.currency"),
        ("accelerator", "b200", "offers.h100-on-demand.accelerator"),
        ("upfront_share", 1.5, "offers.h100-on-demand.upfront_share"),
        ("interruptions_per_h", -0.1, "offers.h100-on-demand.interruptions_per_h"),
    ],
)
def test_an_offer_that_cannot_be_priced_is_refused_by_key(fleet, field, value, where):
    if field in {"price", "interruptions_per_h"}:
        value = replace(fleet.offer.price, value=value)
    with pytest.raises(InputError) as refused:
        priced(fleet, offer=replace(fleet.offer, **{field: value}))
    assert refused.value.where == where


def test_a_reservation_without_a_term_is_refused(fleet):
    with pytest.raises(InputError, match="term_months"):
        priced_as(fleet, OfferKind.RESERVED, 2.72)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("horizon_months", 0), ("model_life_months", 0), ("discount_rate", -0.1),
        ("residual_share", 1.2), ("pue", 0.9), ("engineer_usd_per_year", float("nan")),
    ],
)  # fmt: skip
def test_economics_out_of_range_are_refused_by_key(fleet, field, value):
    with pytest.raises(InputError) as refused:
        priced(fleet, economics=replace(fleet.economics, **{field: value}))
    assert refused.value.where == f"economics.{field}"


@pytest.mark.parametrize(
    ("part", "changed", "where"),
    [
        ("activity", {"decode_gpu_s": float("nan")}, "activity.decode_gpu_s"),
        ("activity", {"late_tokens": -1}, "activity.late_tokens"),
        ("activity", {"lost_gpu_s": 1e9}, "activity.lost_gpu_s"),
        ("activity", {"cached_prompt_tokens": 10_000_000}, "activity.cached_prompt_tokens"),
        ("activity", {"cached_prefill_share": 1.1}, "activity.cached_prefill_share"),
        ("activity", {"decode_w": -1.0}, "activity.decode_w"),
        ("activity", {"busy_at": (BusyAt(rps=0.0, prefill_share=0.1, decode_share=0.1),)}, "activity.busy_at.rps"),
        ("activity", {"busy_at": (BusyAt(rps=1.0, prefill_share=0.6, decode_share=0.6),)}, "activity.busy_at"),
        ("capacity", {"saturation_rps": 0.0}, "capacity.saturation_rps"),
        ("capacity", {"knee_rps": -3.0}, "capacity.knee_rps"),
        ("schedule", {"load_rps": np.array([1.0, np.nan])}, "schedule.load_rps"),
        ("schedule", {"load_rps": np.array([1.0])}, "schedule.load_rps"),
    ],
)
def test_runs_out_of_range_are_refused_by_key(fleet, part, changed, where):
    with pytest.raises(InputError) as refused:
        priced(fleet, **{part: replace(getattr(fleet, part), **changed)})
    assert refused.value.where == where


def test_a_line_whose_views_differ_cannot_exist():
    with pytest.raises(ValueError, match="cash view says"):
        Line(
            name="rent", dimension=Dimension.OPERATIONAL, usd_per_h=1.0, split=ByUse(useful=0.9), formula="1",
            source="test",
        )  # fmt: skip


def test_a_range_is_printed_with_its_source(fleet):
    assert "1.99 to 6.16" in priced(fleet).lines[0].source
    given = replace(fleet.economics, figures={"upkeep_fte": Figure(
        value=0.2, low=0.1, high=0.5, source=Source.GUESS, as_of="2026", reference="a survey",
    )})  # fmt: skip
    upkeep = next(line for line in priced(fleet, economics=given).lines if line.name == "upkeep")
    assert upkeep.source == "upkeep_fte: guess, 0.1 to 0.5, 2026: a survey; engineer_usd_per_year: given"
