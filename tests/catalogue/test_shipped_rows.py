"""Every row the package ships: sourced, dated, consistent, and true to the published values."""

import pytest

from trilemma.catalogue.catalogue import load_catalogue
from trilemma.catalogue.dates import day_of
from trilemma.catalogue.engine import Topology
from trilemma.catalogue.figure import Source
from trilemma.catalogue.offer import OfferKind
from trilemma.catalogue.precision import Role
from trilemma.units import GIB

CATALOGUE = load_catalogue()
ACCELERATORS = [
    "a100_sxm", "h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm", "gb200", "gb300", "rtx_pro_6000", "l40s", "l4",
    "mi300x", "mi325x", "mi355x",
]  # fmt: skip


def all_figures():
    for row in CATALOGUE.accelerators.values():
        yield from ((f"{row.name}.{key}", figure) for key, figure in row.figures.items())
    for engine in CATALOGUE.engines.values():
        yield from ((f"{engine.name}.{key}", figure) for key, figure in engine.figures.items())
        yield from ((f"{engine.name}.{topology}.weeks", work.weeks) for topology, work in engine.effort.items())
        yield from ((f"{engine.name}.{topology}.upkeep", work.upkeep_scale) for topology, work in engine.effort.items())
    yield from ((f"grid.{region.name}", region.gco2_per_kwh) for region in CATALOGUE.grid.values())
    yield from CATALOGUE.economics.figures.items()
    for offer in CATALOGUE.offers.values():
        yield offer.name, offer.price
        if offer.interruptions_per_h is not None:
            yield f"{offer.name} interruptions", offer.interruptions_per_h
    for price in CATALOGUE.api_prices.values():
        yield f"{price.model} input", price.input_usd_per_mtok
        yield f"{price.model} output", price.output_usd_per_mtok
        if price.cached_input_usd_per_mtok is not None:
            yield f"{price.model} cached", price.cached_input_usd_per_mtok


@pytest.mark.parametrize(("name", "figure"), list(all_figures()), ids=lambda x: x if isinstance(x, str) else "")
def test_every_number_has_bounds_a_date_and_a_reference(name, figure):
    assert figure.low <= figure.value <= figure.high
    assert 2020 <= day_of(figure.as_of, where=name).year <= 2026
    assert len(figure.reference) >= 5
    assert isinstance(figure.source, Source)


def test_the_accelerators_are_those_promised():
    assert list(CATALOGUE.accelerators) == ACCELERATORS


@pytest.mark.parametrize("name", ACCELERATORS)
def test_figures_are_the_fields(name):
    row = CATALOGUE.accelerators[name]
    for key, figure in row.figures.items():
        field, _, compute = key.partition(".")
        held = row.flops[compute] if compute else getattr(row, field)
        assert held == figure.value


@pytest.mark.parametrize("name", ACCELERATORS)
def test_a_node_draws_its_chassis_and_its_gpus(name):
    row = CATALOGUE.accelerators[name]
    assert row.node_max_w == pytest.approx(row.chassis_w + row.gpus_per_node * row.tdp_w, rel=0.01)


@pytest.mark.parametrize("name", ACCELERATORS)
def test_power_rises_from_idle_to_the_limit(name):
    row = CATALOGUE.accelerators[name]
    assert 0.1 * row.tdp_w <= row.idle_w < row.decode_w < row.prefill_w <= row.tdp_w


@pytest.mark.parametrize("name", ACCELERATORS)
def test_narrow_formats_are_never_slower_except_int8_on_blackwell_ultra(name):
    flops = CATALOGUE.accelerators[name].flops
    order = [flops[key] for key in ("bf16", "fp8", "fp4") if key in flops]
    assert order == sorted(order)
    if name not in {"b300_sxm", "gb300"}:
        assert flops["int8"] == pytest.approx(flops.get("fp8", 2 * flops["bf16"]), rel=0.01)
    else:
        assert flops["int8"] < flops["bf16"]


@pytest.mark.parametrize("name", ACCELERATORS)
def test_every_accelerator_can_be_had_and_each_kind_has_one_default(name):
    offers = CATALOGUE.offers_for(name)
    labels = [offer.label for offer in offers]
    assert labels, f"{name} has no offer"
    assert len(labels) == len(set(labels))
    assert "owned" in labels
    assert CATALOGUE.offers_for(name, default_only=False)[: len(offers)]


def test_only_the_gb300_cannot_be_rented():
    unrented = [n for n in ACCELERATORS if not CATALOGUE.offers_for(n, ["on-demand", "reserved", "spot"])]
    assert unrented == ["gb300"]


@pytest.mark.parametrize("offer", CATALOGUE.offers.values(), ids=lambda offer: offer.name)
def test_an_offer_is_named_after_its_accelerator_and_kind(offer):
    accelerator, _, rest = offer.name.partition("/")
    assert accelerator == offer.accelerator
    assert rest.startswith(offer.label)
    assert (offer.term_months > 0) == (offer.kind is OfferKind.RESERVED)
    assert offer.currency == "USD"


@pytest.mark.parametrize("name", ACCELERATORS)
def test_owned_units_are_the_purchase_units(name):
    row = CATALOGUE.accelerators[name]
    for offer in CATALOGUE.offers_for(name, ["owned"], default_only=False):
        assert offer.purchase_unit_gpus == row.purchase_unit_gpus


@pytest.mark.parametrize("name", [name for name in ACCELERATORS if name != "gb300"])
def test_a_longer_commitment_costs_less_an_hour(name):
    by_label = {offer.label: offer.price.value for offer in CATALOGUE.offers_for(name)}
    chain = [by_label[label] for label in ("on-demand", "reserved-1y", "reserved-3y") if label in by_label]
    assert chain == sorted(chain, reverse=True)


@pytest.mark.parametrize("name", ["a100_sxm", "mi300x", "mi325x", "l4", "h100_sxm", "h200_sxm", "rtx_pro_6000"])
def test_derived_reservations_are_the_discount_on_demand(name):
    rent = CATALOGUE.offer(f"{name}/on-demand").price.value
    for label, share in (("reserved-1y", 0.68), ("reserved-3y", 0.5)):
        offer = CATALOGUE.offer(f"{name}/{label}").price
        if "reserved discount" in offer.reference:
            assert offer.value == pytest.approx(rent * share, rel=0.002)


# Published values: data sheets and price lists, not our own files.
def test_h100_is_the_data_sheet():
    row = CATALOGUE.accelerator("h100")
    assert (row.hbm_bytes_per_s, row.flops["bf16"], row.flops["fp8"]) == (3.35e12, 989e12, 1979e12)
    assert "fp4" not in row.flops
    assert (row.link_bytes_per_s, row.network_bytes_per_s) == (450e9, 50e9)
    assert (row.tdp_w, row.node_max_w, row.chassis_w) == (700, 10_200, 4_600)
    assert row.hbm_bytes / GIB == pytest.approx(79.2, abs=0.1)


@pytest.mark.parametrize(
    ("name", "bandwidth", "bf16", "fp8", "fp4", "domain"),
    [
        ("a100_sxm", 2.039e12, 312e12, None, None, 8),
        ("h200_sxm", 4.8e12, 989e12, 1979e12, None, 8),
        ("b200_sxm", 8e12, 2250e12, 4500e12, 9000e12, 8),
        ("b300_sxm", 8e12, 2250e12, 4500e12, 13500e12, 8),
        ("gb200", 8e12, 2500e12, 5000e12, 10000e12, 72),
        ("gb300", 8e12, 2500e12, 5000e12, 15000e12, 72),
        ("l40s", 0.864e12, 362e12, 733e12, None, 8),
        ("l4", 0.3e12, 121e12, 242.5e12, None, 8),
        ("mi300x", 5.3e12, 1307e12, 2615e12, None, 8),
        ("mi325x", 6e12, 1307e12, 2615e12, None, 8),
        ("mi355x", 8e12, 2516e12, 5033e12, 10066e12, 8),
    ],
)
def test_data_sheets(name, bandwidth, bf16, fp8, fp4, domain):
    row = CATALOGUE.accelerator(name)
    assert row.hbm_bytes_per_s == bandwidth
    assert (row.flops["bf16"], row.flops.get("fp8"), row.flops.get("fp4")) == (bf16, fp8, fp4)
    assert row.link_domain_gpus == domain


@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [("a100_sxm", 80), ("h100_sxm", 80), ("h200_sxm", 141), ("b200_sxm", 180), ("gb200", 186), ("rtx_pro_6000", 96),
     ("mi300x", 192), ("mi325x", 256), ("mi355x", 288)],
)  # fmt: skip
def test_an_engine_sees_the_data_sheets_memory_or_a_little_more(name, gigabytes):
    assert gigabytes * 1e9 <= CATALOGUE.accelerator(name).hbm_bytes <= gigabytes * GIB


@pytest.mark.parametrize(
    ("name", "price"),
    [
        ("h100_sxm/owned", 285_000),
        ("h100_sxm/on-demand", 3.29),
        ("h200_sxm/on-demand", 4.29),
        ("b200_sxm/owned", 450_000),
        ("b200_sxm/spot", 4.26),
        ("gb200/owned", 3_300_000),
        ("l4/on-demand", 0.805),
        ("mi300x/on-demand", 1.99),
    ],
)
def test_market_prices(name, price):
    assert CATALOGUE.offer(name).price.value == price


def test_cards_are_bought_with_their_share_of_a_host():
    assert CATALOGUE.offer("l40s/owned").price.value > 9_000
    assert CATALOGUE.offer("l40s/owned").price.source is Source.GUESS


def test_api_prices():
    price = CATALOGUE.api_price("deepseek-ai/DeepSeek-V3.2")
    assert price.input_usd_per_mtok.value == 0.28
    assert price.output_usd_per_mtok.value == 0.42
    assert price.cached_input_usd_per_mtok.value == 0.028
    assert CATALOGUE.api_price("zai-org/GLM-5.3").cached_input_usd_per_mtok.value == 0.26
    assert CATALOGUE.api_price("Llama-3.1-70B").cached_input_usd_per_mtok is None


@pytest.mark.parametrize("price", CATALOGUE.api_prices.values(), ids=lambda price: price.model)
def test_a_cached_token_costs_less_than_a_fresh_one(price):
    if price.cached_input_usd_per_mtok is not None:
        assert price.cached_input_usd_per_mtok.value <= price.input_usd_per_mtok.value / 2


@pytest.mark.parametrize("engine", CATALOGUE.engines.values(), ids=lambda engine: engine.name)
def test_work_grows_with_the_topology_and_a_node_is_its_unit(engine):
    assert list(engine.effort) == list(Topology)
    weeks = [engine.effort[topology].weeks.value for topology in Topology]
    upkeep = [engine.effort[topology].upkeep_scale.value for topology in Topology]
    assert weeks == sorted(weeks)
    assert upkeep == sorted(upkeep)
    assert engine.effort[Topology.NODE].upkeep_scale.value == 1
    assert engine.effort[Topology.SINGLE_GPU].weeks.value == engine.effort[Topology.NODE].weeks.value / 2


@pytest.mark.parametrize(("engine", "node", "multi_node"), [("vllm", 2, 10), ("trtllm", 4, 10), ("sglang", 2, 10)])
def test_weeks_of_tuning(engine, node, multi_node):
    effort = CATALOGUE.engine(engine).effort
    assert (effort[Topology.NODE].weeks.value, effort[Topology.MULTI_NODE].weeks.value) == (node, multi_node)


REGIONS = [
    "us", "us-east", "us-west", "us-texas", "canada-quebec", "eu", "ireland", "netherlands", "germany", "france",
    "sweden", "norway", "uk", "india", "singapore", "japan", "china", "australia", "world",
]  # fmt: skip


def test_the_grids_are_those_promised_and_the_default_is_one_of_them():
    assert set(REGIONS) <= set(CATALOGUE.grid)
    figure = CATALOGUE.economics.figures["grid_gco2_per_kwh"]
    assert figure == CATALOGUE.grid["us"].gco2_per_kwh
    assert CATALOGUE.economics.grid_gco2_per_kwh == figure.value


@pytest.mark.parametrize(
    ("region", "published"),  # Ember for 2024, grams per kWh
    [("us", 384), ("ireland", 280), ("france", 44), ("norway", 31), ("india", 709), ("china", 558), ("world", 473)],
)
def test_grid_carbon(region, published):
    assert CATALOGUE.grid_region(region).gco2_per_kwh.value == pytest.approx(published, abs=0.5)


def test_grids_answer_to_their_other_names():
    assert CATALOGUE.grid_region("Virginia").name == "us-east"
    assert CATALOGUE.grid_region("united states").name == "us"


@pytest.mark.parametrize("offer", CATALOGUE.offers.values(), ids=lambda offer: offer.name)
def test_only_what_is_rented_is_interrupted_or_rounded_up(offer):
    if offer.kind is not OfferKind.SPOT:
        assert offer.interruptions_per_h is None
    assert 0 < offer.billing_increment_h <= 1
    if offer.kind in {OfferKind.OWNED, OfferKind.RESERVED}:
        assert offer.billing_increment_h == pytest.approx(1 / 3600)


def test_interruptions_lie_between_the_months_and_the_hours_that_were_published():
    rates = [offer.interruptions_per_h for offer in CATALOGUE.offers.values() if offer.interruptions_per_h is not None]
    assert rates
    for rate in rates:
        assert 0.05 / 730 <= rate.low < rate.value < rate.high <= 1
    assert CATALOGUE.offer("b200_sxm/spot").interruptions_per_h is None


@pytest.mark.parametrize(
    ("engine", "accelerator", "tokens", "sequences"),
    [
        ("vllm", "b200_sxm", 16384, 1024), ("vllm", "mi300x", 16384, 1024), ("vllm", "h100_sxm", 8192, 1024),
        ("vllm", "h200_sxm", 8192, 1024), ("vllm", "a100_sxm", 2048, 256), ("vllm", "l40s", 2048, 256),
        ("trtllm", "l4", 8192, 2048), ("trtllm", "b200_sxm", 8192, 2048),
        ("sglang", "l40s", 4096, 2048), ("sglang", "h100_sxm", 8192, 2048), ("sglang", "b200_sxm", 16384, 2048),
    ],
)  # fmt: skip
def test_scheduler_defaults_are_the_engines_own(engine, accelerator, tokens, sequences):
    row = CATALOGUE.accelerator(accelerator)
    defaults = CATALOGUE.engine(engine).scheduler_for(row.hbm_bytes, row.family)
    assert (defaults.max_num_batched_tokens, defaults.max_num_seqs) == (tokens, sequences)


def test_engines_page_their_cache_in_blocks():
    assert [CATALOGUE.engine(name).block_tokens for name in ("vllm", "trtllm", "sglang")] == [16, 32, 1]
    assert CATALOGUE.engine("vllm").gpu_memory_utilization == 0.92
    assert not CATALOGUE.engine("trtllm").runs_on(CATALOGUE.accelerator("mi300x"))
    assert CATALOGUE.engine("vllm").runs_on(CATALOGUE.accelerator("mi300x"))


@pytest.mark.parametrize("precision", CATALOGUE.precisions.values(), ids=lambda row: row.name)
def test_no_precision_touches_what_checkpoints_keep_in_16_bits(precision):
    kept = {Role.EMBEDDING, Role.HEAD, Role.ROUTER, Role.NORM, Role.VISION}
    assert not kept & (precision.quantised | (precision.quantised_dense or frozenset()))
    assert precision.note
    assert precision.reference
    assert all(precision.bytes_per_weight(role) == 2 for role in kept)


def test_bits_per_weight_count_the_scales():
    bits = {row.name: row.bits_per_weight for row in CATALOGUE.precisions.values()}
    assert bits == {"bf16": 16, "fp8": 8, "int8": 8, "int4": 4 + 16 / 128, "mxfp4": 4 + 8 / 32, "nvfp4": 4 + 8 / 16}


def test_every_models_native_precision_is_in_the_catalogue():
    assert {model.precision for model in CATALOGUE.models.values()} <= set(CATALOGUE.precisions)


def test_economics_are_the_documented_defaults():
    rates = CATALOGUE.economics
    assert (rates.horizon_months, rates.discount_rate, rates.residual_share) == (36, 0.09, 0.25)
    assert (rates.residual_share, rates.capex_uplift, rates.pue) == (0.25, 0.25, 1.35)
    assert (rates.electricity_usd_per_kwh, rates.engineer_usd_per_year, rates.upkeep_fte) == (0.087, 300_000, 0.2)
    assert (rates.model_life_months, rates.figures["model_life_months"].low) == (9, 6)
