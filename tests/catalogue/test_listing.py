"""What the catalogue command prints."""

import json

import pytest

from trilemma.catalogue.catalogue import load_catalogue
from trilemma.catalogue.listing import TABLES, catalogue_rows
from trilemma.errors import InputError

CATALOGUE = load_catalogue()
PROVENANCE = {"source", "as_of", "reference"}


@pytest.mark.parametrize("table", TABLES)
def test_every_table_lists_flat_rows_with_the_same_keys(table):
    rows = catalogue_rows(CATALOGUE, table)
    assert rows
    assert all(row.keys() == rows[0].keys() for row in rows)
    assert all(isinstance(value, str | float | int | bool | None) for row in rows for value in row.values())
    assert json.loads(json.dumps(rows)) == rows


@pytest.mark.parametrize(
    ("table", "details"),
    [
        ("offers", False),
        ("offers", True),
        ("economics", False),
        ("grid", False),
        ("accelerators", True),
        ("engines", True),
        ("api", False),
    ],
)
def test_numbers_come_with_their_provenance(table, details):
    for row in catalogue_rows(CATALOGUE, table, details=details):
        assert row.keys() >= PROVENANCE
        assert all(row[key] for key in PROVENANCE)
        if "low" in row:
            names = ("value", "usd_per_gpu_h", "usd_per_unit", "gco2_per_kwh")
            value = next(row[key] for key in names if row.get(key) is not None)
            assert row["low"] <= value <= row["high"]


def test_offers_are_filtered_by_accelerator_and_kind():
    rows = catalogue_rows(CATALOGUE, "offers", accelerator="H200", kind="reserved-3y")
    assert {row["accelerator"] for row in rows} == {"h200_sxm"}
    assert {row["kind"] for row in rows} == {"reserved-3y"}
    assert [row["offer"] for row in rows if row["default"]] == ["h200_sxm/reserved-3y"]


def test_an_accelerator_nobody_sells_says_so(tmp_path):
    rows = catalogue_rows(CATALOGUE, "offers", accelerator="gb300")
    assert [row["kind"] for row in rows if row["default"]] == ["owned"]
    assert {row["offers"] for row in catalogue_rows(CATALOGUE, "accelerators")} == {"yes"}
    source = CATALOGUE.accelerator("l4")
    quote = 'source = "guess", as_of = "2026", reference = "a test"'
    lines = [
        f"{key} = {{ value = {figure.value}, {quote} }}" for key, figure in source.figures.items() if "." not in key
    ]
    path = tmp_path / "mine.toml"
    path.write_text(
        '[accelerators.lab]\ntitle = "Lab"\nvendor = "NVIDIA"\nfamily = "ada"\nlink_domain_gpus = 1\n'
        "gpus_per_node = 1\npurchase_unit_gpus = 1\n"
        + "\n".join(lines)
        + f"\n[accelerators.lab.flops]\nbf16 = {{ value = 1e12, {quote} }}"
    )
    mine = load_catalogue([path])
    (row,) = catalogue_rows(mine, "offers", accelerator="lab")
    assert row["offer"] == "lab: no offer"
    assert row["usd_per_gpu_h"] is None
    assert all(row.keys() == other.keys() for other in catalogue_rows(mine, "offers"))
    assert catalogue_rows(mine, "accelerators", contains="lab")[0]["offers"] == "no offer"
    assert catalogue_rows(mine, "offers", accelerator="lab", kind="spot") == []


def test_what_nobody_published_is_no_number():
    by_name = {row["offer"]: row for row in catalogue_rows(CATALOGUE, "offers")}
    spot = by_name["h100_sxm/spot"]
    assert spot["interruptions_per_h"] == CATALOGUE.offer("h100_sxm/spot").interruptions_per_h.value
    assert by_name["b200_sxm/spot"]["interruptions_per_h"] is None
    assert by_name["h100_sxm/owned"]["billing_increment_h"] is None


def test_details_of_an_offer_say_where_its_interruptions_come_from():
    rows = catalogue_rows(CATALOGUE, "offers", accelerator="h100", kind="spot", details=True)
    numbers = {(row["offer"], row["number"]): row for row in rows}
    assert numbers["h100_sxm/spot", "usd_per_gpu_h"]["value"] == 2
    assert numbers["h100_sxm/spot", "interruptions_per_h"]["source"] == "guess"
    assert numbers["h100_sxm/spot-hyperscaler", "interruptions_per_h"]["source"] == "derived"


def test_grids_are_found_by_any_of_their_names():
    (row,) = catalogue_rows(CATALOGUE, "grid", contains="virginia")
    assert (row["region"], row["gco2_per_kwh"]) == ("us-east", 418)


def test_the_economics_show_what_the_plan_will_use():
    rows = {row["rate"]: row for row in catalogue_rows(CATALOGUE, "economics")}
    assert rows["grid_gco2_per_kwh"]["value"] == CATALOGUE.grid["us"].gco2_per_kwh.value
    assert rows["instance_start_s"]["value"] == 420


def test_engines_say_how_long_each_topology_takes():
    (row,) = catalogue_rows(CATALOGUE, "engines", contains="trtllm")
    assert (row["weeks_single_gpu"], row["weeks_node"], row["weeks_multi_node"]) == (2, 4, 10)


def test_a_substring_filters_in_any_case():
    names = [row["accelerator"] for row in catalogue_rows(CATALOGUE, "accelerators", contains="Instinct")]
    assert names == ["mi300x", "mi325x", "mi355x"]
    assert catalogue_rows(CATALOGUE, "engines", contains="TENSORRT")[0]["engine"] == "trtllm"
    assert catalogue_rows(CATALOGUE, "models", contains="no such model") == []


def test_details_of_one_accelerator():
    rows = catalogue_rows(CATALOGUE, "accelerators", contains="h100_sxm", details=True)
    tdp = next(row for row in rows if row["accelerator"] == "h100_sxm" and row["number"] == "tdp_w")
    assert (tdp["value"], tdp["source"]) == (700, "vendor")


def test_precisions_say_what_they_run_in():
    rows = {row["precision"]: row for row in catalogue_rows(CATALOGUE, "precisions", accelerator="a100")}
    assert rows["fp8"]["runs_on_a100_sxm_in"] == "bf16"
    assert "no fp8 units" in rows["fp8"]["because"]
    assert rows["bf16"]["because"] is None


def test_models_are_counted_by_the_caller():
    rows = catalogue_rows(
        CATALOGUE, "models", contains="gpt-oss-120b", parameters=lambda model: (10**9 * model.layers, 10**9)
    )
    assert (rows[0]["parameters_billion"], rows[0]["active_billion"]) == (36.0, 1.0)
    assert catalogue_rows(CATALOGUE, "models", contains="gpt-oss-120b")[0]["parameters_billion"] is None


def test_an_unknown_table_is_refused():
    with pytest.raises(InputError, match="expected one of models, accelerators"):
        catalogue_rows(CATALOGUE, "gpus")
