"""What a scenario says of the money around the hardware reaches the question."""

import pytest

from trilemma.api.question import ask
from trilemma.catalogue.catalogue import load_catalogue

CATALOGUE = load_catalogue()
SCENARIO = """version: 1
model: Qwen/Qwen3-8B
workload: {arrivals: {process: poisson, rate: 2 req/s, requests: 500}, lengths: {prompt: {distribution: fixed,
  tokens: 300}, output: {distribution: fixed, tokens: 20}}}
space: {accelerators: [h100_sxm], offers: [on-demand]}
as_of: 2026-11-30
"""
EUROS = """[[offers]]
name = "h100_sxm/on-demand"
price = 3.0
currency = "EUR"
source = "vendor"
as_of = "2026-11-02"
reference = "our quote 17"
"""


@pytest.fixture
def question(tmp_path):
    def question(economics, **files):
        for name, text in files.items():
            (tmp_path / name.replace("_", ".")).write_text(text)
        (tmp_path / "mine.yaml").write_text(SCENARIO + economics)
        return ask(tmp_path / "mine.yaml").question

    return question


def test_without_a_word_the_catalogues_economics_stand(question):
    assert question("").economics == CATALOGUE.economics


def test_a_region_brings_its_sourced_number(question):
    economics = question("economics: {grid_region: Ireland}\n").economics
    assert economics.figures["grid_gco2_per_kwh"] == CATALOGUE.grid["ireland"].gco2_per_kwh
    assert economics.grid_gco2_per_kwh == CATALOGUE.grid["ireland"].gco2_per_kwh.value


def test_a_number_wins_and_rests_on_the_users_word(question):
    economics = question("economics: {grid_gco2_per_kwh: 12}\n").economics
    assert economics.grid_gco2_per_kwh == 12
    assert "grid_gco2_per_kwh" not in economics.figures


def test_a_rate_of_the_scenario_turns_the_prices_of_its_catalogue(question):
    asked = question("economics: {exchange_rates: {EUR: 1.1}}\ncatalogue: [rows.toml]\n", rows_toml=EUROS)
    (offer,) = asked.space.offers
    assert offer.price.value == pytest.approx(3.3)
    assert offer.price.reference == "our quote 17; EUR 3 at 1.1"
    assert asked.economics.exchange_rates == {"EUR": 1.1}


def test_the_value_of_batch_tokens_and_the_start_are_the_users(question):
    economics = question("economics: {backfill_usd_per_mtok: 0.2, instance_start_s: 60}\n").economics
    assert (economics.backfill_usd_per_mtok, economics.instance_start_s) == (0.2, 60)
