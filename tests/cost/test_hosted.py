"""Tokens from an API: all operational and useful but for the weeks of wrapping."""

from dataclasses import replace

import numpy as np
import pytest

from trilemma.catalogue.figure import Figure, Source
from trilemma.catalogue.offer import ApiPrice
from trilemma.cost.hosted import api_bill
from trilemma.errors import InputError


def usd(value, as_of="2026-11"):
    return Figure(value=value, low=value, high=value, source=Source.VENDOR, as_of=as_of, reference="list price")


PRICE = ApiPrice(model="llama-70b", input_usd_per_mtok=usd(0.5), output_usd_per_mtok=usd(1.5))


def test_all_operational_and_useful_but_for_the_wrapper(fleet):
    run = replace(fleet.activity, late_tokens=0)
    priced = api_bill(PRICE, run, fleet.economics)
    # 6.6M prompt and 3.3M output tokens an hour
    assert priced.operational_usd_per_h == pytest.approx(6.6 * 0.5 + 3.3 * 1.5)
    assert priced.capital_usd_per_h == 0
    wrapper = 3 * 300_000 / 52 * 0.09 / (1 - 1.09**-0.75) / 8760
    assert priced.engineering_usd_per_h == pytest.approx(wrapper)
    assert priced.use_view["useful"] == pytest.approx(priced.total_usd_per_h)
    assert priced.opportunity_usd_per_h == 0
    assert priced.it_watts is None
    assert priced.energy_wh_per_mtok_output is None
    assert priced.usd_per_mtok_by_gpu_time is None
    assert priced.usd_per_mtok_output == pytest.approx(priced.total_usd_per_h / 3.3)


def test_late_requests_are_charged_too_and_load_follows_the_schedule(fleet):
    priced = api_bill(PRICE, fleet.activity, fleet.economics, schedule=fleet.schedule)
    assert priced.volumes.requests_per_h == pytest.approx(1.5 * 3600)
    tokens = priced.volumes.prompt_tokens_per_h + priced.volumes.output_tokens_per_h
    assert tokens == pytest.approx((9_900_000 + 60_000) * 0.75)


def test_a_batch_that_arrives_at_once_is_priced_over_its_span(fleet):
    priced = api_bill(PRICE, replace(fleet.activity, rate_rps=np.inf), fleet.economics)
    assert priced.volumes.requests_per_h == pytest.approx(7200)


def test_what_is_not_known_is_said(fleet):
    cached = replace(PRICE, cached_input_usd_per_mtok=usd(0.05))
    notes = api_bill(cached, fleet.activity, fleet.economics, as_of="2027-11-01").notes
    assert any("uncached" in note for note in notes)
    assert any("API price of llama-70b: price of 2026-11" in note for note in notes)


def test_what_the_run_found_in_its_cache_is_bought_at_the_price_of_cached_input(fleet):
    run = replace(fleet.activity, late_tokens=0, cached_prompt_tokens=3_300_000, cached_prefill_share=0.1)
    cached = api_bill(replace(PRICE, cached_input_usd_per_mtok=usd(0.05)), run, fleet.economics)
    assert cached.operational_usd_per_h == pytest.approx(3.3 * 0.5 + 3.3 * 0.05 + 3.3 * 1.5)
    assert [line.name for line in cached.lines] == ["input tokens", "cached input tokens", "output tokens", "wrapper"]
    assert any("50.0% of the input is priced as cached" in note for note in cached.notes)
    plain = api_bill(PRICE, run, fleet.economics)
    assert plain.operational_usd_per_h == pytest.approx(6.6 * 0.5 + 3.3 * 1.5)
    assert any("no price of cached input is known" in note for note in plain.notes)
    with pytest.raises(InputError, match=r"api\.llama-70b\.cached_input_usd_per_mtok"):
        api_bill(replace(PRICE, cached_input_usd_per_mtok=usd(-1.0)), run, fleet.economics)


def test_bad_prices_and_runs_without_lengths_are_refused(fleet):
    with pytest.raises(InputError, match=r"api\.llama-70b\.output_usd_per_mtok"):
        api_bill(replace(PRICE, output_usd_per_mtok=usd(-1.0)), fleet.activity, fleet.economics)
    with pytest.raises(InputError, match=r"api\.llama-70b\.currency"):
        api_bill(replace(PRICE, currency="EUR"), fleet.activity, fleet.economics)
    with pytest.raises(InputError, match="inside its limits"):
        api_bill(PRICE, replace(fleet.activity, useful_tokens=0), fleet.economics)
