"""A user's file over the shipped rows: what it names changes, nothing else does, and the digest tells."""

from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilemma.catalogue.catalogue import load_catalogue
from trilemma.catalogue.engine import Topology
from trilemma.catalogue.precision import Role
from trilemma.catalogue.support import precision_on
from trilemma.errors import InputError

BASE = load_catalogue()
QUOTE = 'source = "vendor", as_of = "2026-11-02", reference = "our quote 17"'
PRICE = 'source = "vendor"\nas_of = "2026-11-02"\nreference = "our quote 17"\n'
NUMBERS = ["hbm_bytes", "hbm_bytes_per_s", "link_bytes_per_s", "network_bytes_per_s", "tdp_w", "idle_w", "decode_w"]
RATES = [name for name in BASE.economics.figures if name not in {"pue", "residual_share", "discount_rate"}]
SMALL = st.floats(0.001, 0.9, allow_nan=False)


@pytest.fixture(scope="module")
def lay(tmp_path_factory):
    path = tmp_path_factory.mktemp("overlay") / "mine.toml"

    def write_and_load(text):
        path.write_text(text, encoding="utf-8")
        return load_catalogue([path])

    return write_and_load


def changed(before, after):
    return {f.name for f in fields(before) if getattr(before, f.name) != getattr(after, f.name)}


@settings(deadline=None, max_examples=40)
@given(name=st.sampled_from(list(BASE.accelerators)), key=st.sampled_from(NUMBERS), value=st.floats(1.0, 1e15))
def test_one_field_of_an_accelerator_changes_only_that(lay, name, key, value):
    mine = lay(f"[accelerators.{name}]\n{key} = {{ value = {value!r}, {QUOTE} }}")
    before, after = BASE.accelerators[name], mine.accelerators[name]
    assert getattr(after, key) == value
    assert changed(before, after) <= {key, "figures"}
    assert {k for k in after.figures if after.figures[k] != before.figures[k]} == {key}
    assert {n for n, row in mine.accelerators.items() if row != BASE.accelerators[n]} == {name}
    assert (mine.offers, mine.engines, mine.economics) == (BASE.offers, BASE.engines, BASE.economics)
    assert mine.digest != BASE.digest


@settings(deadline=None, max_examples=40)
@given(key=st.sampled_from(RATES), value=SMALL)
def test_one_rate_changes_only_that(lay, key, value):
    mine = lay(f"[economics]\n{key} = {{ value = {value!r}, {QUOTE} }}")
    assert changed(BASE.economics, mine.economics) <= {key, "figures"}
    assert getattr(mine.economics, key) == value
    assert mine.accelerators == BASE.accelerators


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(list(BASE.offers)), unique=True, max_size=4), SMALL)
def test_the_digest_changes_exactly_with_the_rows(lay, names, price):
    text = "".join(f'[[offers]]\nname = "{name}"\nprice = {price!r}\n{PRICE}' for name in names)
    mine = lay(text)
    assert (mine.digest == BASE.digest) == (not names)
    assert mine.digest == lay("# a comment\n\n" + text).digest


def test_an_empty_file_and_a_restated_row_change_nothing(lay):
    figure = BASE.accelerator("h100").figures["tdp_w"]
    same = lay(
        f'[accelerators.h100_sxm]\ntdp_w = {{ value = 700, source = "vendor", as_of = "{figure.as_of}", '
        f'reference = "{figure.reference}" }}'
    )
    assert lay("").digest == same.digest == BASE.digest
    assert same == BASE


def test_an_alias_names_the_row_it_means(lay):
    mine = lay(f"[accelerators.H100]\ntdp_w = {{ value = 650, {QUOTE} }}")
    assert mine.accelerator("h100_sxm").tdp_w == 650
    assert list(mine.accelerators) == list(BASE.accelerators)


def test_one_format_of_flops_can_change_alone(lay):
    mine = lay(f"[accelerators.h100_sxm.flops]\nbf16 = {{ value = 800e12, {QUOTE} }}")
    assert mine.accelerator("h100").flops == {**BASE.accelerator("h100").flops, "bf16": 800e12}


def test_a_new_accelerator_with_its_offer(lay):
    numbers = "\n".join(
        f"{key} = {{ value = {value}, {QUOTE} }}"
        for key, value in dict(
            hbm_bytes=64e9, hbm_bytes_per_s=2e12, link_bytes_per_s=1e11, network_bytes_per_s=5e10, tdp_w=500, idle_w=60,
            decode_w=300, prefill_w=480, chassis_w=2000, node_max_w=4000,
        ).items()
    )  # fmt: skip
    mine = lay(
        '[accelerators.nova_1]\ntitle = "Nova 1"\nvendor = "Nova"\nfamily = "nova"\nlink_domain_gpus = 4\n'
        f"gpus_per_node = 4\npurchase_unit_gpus = 4\n{numbers}\n[accelerators.nova_1.flops]\n"
        f"bf16 = {{ value = 4e14, {QUOTE} }}\n"
        '[[offers]]\nname = "nova_1/owned"\naccelerator = "Nova-1"\nkind = "owned"\npurchase_unit_gpus = 4\n'
        f'market = "quote"\nprice = 90000\n{PRICE}'
    )
    assert [offer.price.value for offer in mine.offers_for("nova-1")] == [90_000]
    assert mine.offer("nova_1/owned").accelerator == "nova_1"
    assert precision_on(mine.precision("fp8"), mine.accelerator("nova_1")).compute == "bf16"
    assert not mine.engine("vllm").runs_on(mine.accelerator("nova_1"))


def test_a_title_changes_no_offer(lay):
    mine = lay('[accelerators.a100_sxm]\ntitle = "Our A100"')
    assert mine.accelerator("a100").title == "Our A100"
    assert mine.offers_for("a100") == BASE.offers_for("a100")


def test_a_price_and_its_provenance_are_replaced_together(lay):
    mine = lay(f'[[offers]]\nname = "h100_sxm/on-demand"\nprice = 2.1\n{PRICE}')
    offer = mine.offer("h100_sxm/on-demand")
    assert (offer.price.value, offer.price.low, offer.price.high) == (2.1, 2.1, 2.1)
    assert offer.purchase_unit_gpus == 8
    with pytest.raises(InputError, match=r"mine.toml: offers\[0\].source: expected a text, found nothing"):
        lay('[[offers]]\nname = "h100_sxm/on-demand"\nprice = 2.1')


def test_an_offers_unit_can_change_alone(lay):
    mine = lay('[[offers]]\nname = "h100_sxm/on-demand"\npurchase_unit_gpus = 1')
    assert changed(BASE.offer("h100_sxm/on-demand"), mine.offer("h100_sxm/on-demand")) == {"purchase_unit_gpus"}


def test_interruptions_of_a_spot_offer(lay):
    mine = lay(f'[[offers]]\nname = "h100_sxm/spot"\ninterruptions_per_h = {{ value = 0.02, high = 0.1, {QUOTE} }}')
    assert changed(BASE.offer("h100_sxm/spot"), mine.offer("h100_sxm/spot")) == {"interruptions_per_h"}
    rate = mine.offer("h100_sxm/spot").interruptions_per_h
    assert (rate.low, rate.value, rate.high, rate.reference) == (0.02, 0.02, 0.1, "our quote 17")


def test_starting_and_billing_of_a_rented_offer(lay):
    mine = lay(
        f'[[offers]]\nname = "h100_sxm/on-demand"\nstart_s = {{ value = 90, {QUOTE} }}\nbilling_increment_h = 1'
    ).offer("h100_sxm/on-demand")
    assert changed(BASE.offer("h100_sxm/on-demand"), mine) == {"start_s", "billing_increment_h"}
    assert (mine.start_s.value, mine.billing_increment_h) == (90, 1)


def test_the_work_on_one_topology_changes_alone(lay):
    mine = lay(f"[engines.vllm.effort.node]\nweeks = {{ value = 7, {QUOTE} }}").engine("vllm").effort
    before = BASE.engine("vllm").effort
    assert mine[Topology.NODE].weeks.value == 7
    assert mine[Topology.NODE].upkeep_scale == before[Topology.NODE].upkeep_scale
    assert {topology for topology in before if mine[topology] != before[topology]} == {Topology.NODE}


def test_a_grid_is_chosen_by_region_or_by_number(lay):
    named = lay('[economics]\ngrid_region = "Quebec"').economics
    assert named.figures["grid_gco2_per_kwh"] == BASE.grid["canada-quebec"].gco2_per_kwh
    number = lay(f"[economics]\ngrid_gco2_per_kwh = {{ value = 12, {QUOTE} }}").economics
    assert (number.grid_gco2_per_kwh, number.figures["grid_gco2_per_kwh"].reference) == (12, "our quote 17")
    own = lay(
        f'[grid.our-roof]\ntitle = "Our roof"\ngco2_per_kwh = {{ value = 0, {QUOTE} }}\n'
        '[economics]\ngrid_region = "our-roof"'
    )
    assert own.economics.grid_gco2_per_kwh == 0


RATE = f"exchange_rates = {{ EUR = {{ value = 1.08, {QUOTE} }} }}"
EUROS = f'[[offers]]\nname = "h100_sxm/on-demand"\nprice = 3.1\nlow = 2.5\ncurrency = "EUR"\n{PRICE}'


def test_a_foreign_price_becomes_dollars_and_says_so(lay):
    mine = lay(f"{EUROS}[economics]\n{RATE}")
    offer = mine.offer("h100_sxm/on-demand")
    assert offer.price.value == pytest.approx(3.348)
    assert (offer.price.low, offer.price.high) == (pytest.approx(2.7), pytest.approx(3.348))
    assert offer.price.reference == "our quote 17; EUR 3.1 at 1.08"
    assert offer.currency == "USD"
    assert mine.economics.exchange_rates == {"EUR": 1.08}
    assert mine.economics.figures["exchange_rates.EUR"].reference == "our quote 17"


def test_a_rate_given_from_outside_goes_before_the_files(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(f"{EUROS}[economics]\n{RATE}")
    mine = load_catalogue([path], exchange_rates={"EUR": 1.2})
    assert mine.offer("h100_sxm/on-demand").price.value == pytest.approx(3.72)
    assert mine.economics.exchange_rates == {"EUR": 1.2}
    assert "exchange_rates.EUR" not in mine.economics.figures


def test_rates_of_several_files_add_up(tmp_path):
    for number, code in ((1, "EUR"), (2, "JPY")):
        rate = f"exchange_rates = {{ {code} = {{ value = {number}, {QUOTE} }} }}"
        (tmp_path / f"{number}.toml").write_text(f"[economics]\n{rate}")
    both = load_catalogue([tmp_path / "1.toml", tmp_path / "2.toml"])
    assert both.economics.exchange_rates == {"EUR": 1, "JPY": 2}


def test_every_token_price_is_converted(lay):
    mine = lay(
        f'[[api_prices]]\nmodel = "me/x"\ninput = 1\noutput = 2\ncached_input = 0.5\ncurrency = "EUR"\n{PRICE}'
        f"[economics]\n{RATE}"
    ).api_price("me/x")
    values = [mine.input_usd_per_mtok, mine.output_usd_per_mtok, mine.cached_input_usd_per_mtok]
    assert [price.value for price in values] == pytest.approx([1.08, 2.16, 0.54])
    assert mine.output_usd_per_mtok.reference == "our quote 17; EUR 2 at 1.08"


@settings(deadline=None, max_examples=20)
@given(price=st.floats(0.01, 1e6), rate=st.floats(1e-4, 1e3))
def test_conversion_scales_a_price_and_its_bounds_alike(lay, price, rate):
    text = f'[[offers]]\nname = "l4/on-demand"\nprice = {price!r}\nlow = {price / 2!r}\nhigh = {2 * price!r}\n{PRICE}'
    dollars = lay(text).offer("l4/on-demand").price
    other = lay(
        text.replace("price =", 'currency = "CHF"\nprice =', 1)
        + f"[economics]\nexchange_rates = {{ CHF = {{ value = {rate!r}, {QUOTE} }} }}"
    )
    for part in ("value", "low", "high"):
        converted = getattr(other.offer("l4/on-demand").price, part)
        assert converted == pytest.approx(getattr(dollars, part) * rate)


def test_an_engine_changes_in_one_field(lay):
    mine = lay(f"[engines.vllm]\ngpu_memory_utilization = {{ value = 0.9, {QUOTE} }}")
    assert changed(BASE.engine("vllm"), mine.engine("vllm")) == {"gpu_memory_utilization", "figures"}


def test_a_precision_can_learn_a_family(lay):
    mine = lay('[precisions.int8.on.hopper]\ncompute = "bf16"\nreason = "our build lacks the kernel"')
    support = precision_on(mine.precision("int8"), mine.accelerator("h100"))
    assert (support.compute, support.native) == ("bf16", False)
    assert precision_on(mine.precision("int8"), mine.accelerator("b200")).compute is None


def test_a_new_precision(lay):
    mine = lay(
        '[precisions.w6]\nbits_per_weight = 6.25\nquantised = ["mlp"]\ncompute = "bf16"\nkv_bytes_per_element = 2\n'
        'note = "ours"\nas_of = "2026-11"\nreference = "our kernel"'
    )
    assert mine.precision("W6").bytes_per_weight(Role.MLP) == 6.25 / 8


def test_an_api_price_is_replaced_whole_and_keeps_its_aliases(lay):
    mine = lay(f'[[api_prices]]\nmodel = "meta-llama/Meta-Llama-3.1-70B"\ninput = 0.2\noutput = 0.4\n{PRICE}')
    price = mine.api_price("Llama-3.1-70B")
    assert (price.input_usd_per_mtok.high, price.output_usd_per_mtok.value) == (0.2, 0.4)


def test_a_model_row_is_added_or_replaced(lay):
    row = "hidden = 64\nvocab = 1000\nblocks = [{ count = 2, mlp = { width = 256 } }]\n"
    mine = lay(f'[models."me/toy"]\n{row}\n[models."qwen/qwen3-0.6b"]\n{row}')
    assert mine.model("toy").layers == 2
    assert mine.model("Qwen/Qwen3-0.6B").hidden == 64
    assert len(mine.models) == len(BASE.models) + 1
    assert mine.digest != BASE.digest


def test_later_files_win(tmp_path):
    for number, value in ((1, 600), (2, 650)):
        text = f"[accelerators.h100_sxm]\ntdp_w = {{ value = {value}, {QUOTE} }}"
        (tmp_path / f"{number}.toml").write_text(text)
    both = load_catalogue([tmp_path / "1.toml", tmp_path / "2.toml"])
    assert both.accelerator("h100").tdp_w == 650
