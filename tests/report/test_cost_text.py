"""Bills and comparisons in words: the answer first, every formula where asked for, never wider than the screen."""

import doctest
import re
from functools import cache
from importlib import import_module

import pytest

from tests.planner.questions import CLOSED, DAY, SMALL, together
from trilemma import api
from trilemma.report import comparison_text, cost_text
from trilemma.report.cost_tables import fitted

ONLY_H100 = {"space.accelerators": ["h100_sxm"]}
LLAMA = {"model": "meta-llama/Meta-Llama-3.1-70B", "space.tensor_parallel": [4], "space.precisions": ["fp8"]}
H100 = {"accelerator": "h100_sxm", "precision": "bf16", "tensor": 1}
BATCH_VALUE = {"economics.backfill_usd_per_mtok": 0.1}
WIDTHS = (40, 64, 80, 120, 200)
ORDER = (
    "Offers", "Bill of", "What could come back", "Break-even", "Cash", "What moves", "Is another engineer-week",
    "$ per million output tokens", "The day", "Prices", "Notes",
)  # fmt: skip


@cache
def bill(offer="owned"):
    changes = together(DAY, BATCH_VALUE)
    return api.cost(SMALL, deployment=H100 | {"replicas": 3}, offer=offer, overrides=changes)


@cache
def comparison(with_api=True):
    if with_api:
        changes = together(ONLY_H100, LLAMA, DAY)
        return api.compare(SMALL, offers="own,reserved-1y,on-demand,spot,api", overrides=changes, processes=1)
    return api.compare(SMALL, offers="own,on-demand,api", deployment=H100 | {"replicas": 2}, overrides=CLOSED)


def flat(text):
    """The text without its line breaks."""
    return " ".join(text.split())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("explain", [False, True])
def test_nothing_is_wider_than_the_screen_or_undefined(width, explain):
    texts = [cost_text(bill(offer), width=width, explain=explain) for offer in ("owned", "on-demand", "spot")]
    texts += [comparison_text(comparison(each), width=width, explain=explain) for each in (True, False)]
    for text in texts:
        assert max(map(len, text.splitlines())) <= width
        assert not re.search(r"\b(nan|inf|None|True|False)\b", text)
        assert not re.search(r"[ \t]+\n", text)
        assert "\n\n\n" not in text
        assert text.endswith("\n")


@pytest.mark.parametrize("with_api", [True, False])
def test_the_answer_stands_first_and_the_parts_in_their_order(with_api):
    document = comparison(with_api)
    text = comparison_text(document, width=120)
    assert flat(text).startswith(document["recommendation"])
    found = [text.index(f"\n\n{head}") for head in ORDER if f"\n\n{head}" in text]
    assert found == sorted(found)
    assert len(found) >= len(ORDER) - 1


def test_the_recommendation_has_its_interval_and_its_probability():
    document = comparison()
    best = document["offers"][0]
    span = best["interval"]["total_usd_per_h"]
    said = document["recommendation"]
    assert f"${best['total_usd_per_h']:,.2f} an hour (${span['p10']:,.2f} to ${span['p90']:,.2f} in 8 of 10" in said
    assert f"in {100 * document['probability_cheapest'][best['name']]:.0f}% of draws" in said
    assert document["offers"][1]["name"] in said


def test_the_table_of_offers_has_every_number():
    document = comparison()
    table = comparison_text(document, width=200).split("\n\n")[2]
    assert table.startswith("Offers in $/h")
    for one in document["offers"]:
        (row,) = [
            line
            for line in table.splitlines()
            if line.startswith("api " if one["kind"] == "api" else one["name"] + " ")
        ]
        assert f"{one['total_usd_per_h']:,.2f}" in row
        for usd in one["cash"].values():
            assert f"{usd:,.2f}" in row
        assert f"{one['opportunity_usd_per_h']:,.2f}" in row


def test_the_curve_is_shown_from_end_to_end_with_the_field_marked():
    lines = comparison_text(comparison(), width=200).split("$ per million output tokens by")[1].splitlines()
    marked = {cells[0]: cells[1] == "seen" for line in lines[3:15] if (cells := line.split())}
    assert {name for name, seen in marked.items() if not seen} == {"1%", "90%", "100%"}
    assert {"5%", "50%", "80%"} < {name for name, seen in marked.items() if seen}


def test_an_offer_that_is_not_there_is_said_to_be_missing():
    assert "- api: not compared, the catalogue has no hosted price of" in comparison_text(comparison(False), width=120)


def test_explain_prints_every_formula_with_its_number_and_source():
    text = flat(cost_text(bill(), width=77, explain=True))
    for line in bill()["lines"]:
        assert f"{line['name']} ({line['dimension']}): ${line['usd_per_h']:,.4f}/h = {flat(line['formula'])}" in text
    for one in bill()["explain"]["unit_costs"]:
        assert flat(one["formula"]) in text
    for use in bill()["explain"]["gpus"]["uses"]:
        assert flat(use["formula"]) in text
    for word in ("paid", "kept", "held", "asked", "knee", "saturation", "served"):
        assert f"- {word}: " in text
    assert "from discount_rate: derived, 0.07 to 0.13, 2026-09: cost of capital" in text
    assert "=" not in cost_text(bill(), width=77).split("Notes")[0].replace("<=", "")


def test_explain_of_a_comparison_explains_every_offer():
    text = flat(comparison_text(comparison(), width=100, explain=True))
    for one in comparison()["offers"]:
        for line in one["bill"]["lines"]:
            assert flat(line["formula"]) in text


def test_the_use_view_is_reckoned_from_the_quantities_shown():
    for offer in ("owned", "on-demand"):
        gpus, uses = (
            bill(offer)["explain"]["gpus"],
            {x["use"]: x["gpus"] for x in bill(offer)["explain"]["gpus"]["uses"]},
        )
        assert sum(uses.values()) == pytest.approx(gpus["paid"])
        assert gpus["paid"] >= gpus["kept"] >= gpus["asked"] >= gpus["saturation"] - 1e-9
        assert gpus["kept"] == pytest.approx(gpus["held"])
        assert uses["stranded"] == pytest.approx(gpus["paid"] - gpus["kept"])


def test_unit_costs_are_what_their_formulas_say():
    def worth(formula):
        return [float(x.replace(",", "")) for x in re.findall(r"[\d][\d,]*\.?\d*(?:e[+-]?\d+)?", formula)]

    found = {one["name"]: one for one in bill()["explain"]["unit_costs"]}
    total, million, tokens = worth(found["usd_per_mtok_output"]["formula"])[:3]
    assert found["usd_per_mtok_output"]["value"] == pytest.approx(total * million / tokens, rel=1e-4)
    watts, pue, million, tokens = worth(found["energy_wh_per_mtok_output"]["formula"])[:4]
    assert found["energy_wh_per_mtok_output"]["value"] == pytest.approx(watts * pue * million / tokens, rel=1e-4)
    wh, thousand, grid = worth(found["gco2_per_mtok_output"]["formula"])[:3]
    assert found["gco2_per_mtok_output"]["value"] == pytest.approx(wh / thousand * grid, rel=1e-4)


def test_missed_limits_are_the_first_thing_after_the_price():
    missed = api.cost(SMALL, deployment=H100, offer="owned", overrides={"limits": ["ttft p99 <= 1 ms"]})
    assert "\nLIMITS MISSED: ttft p99 <= 1 ms\n" in cost_text(missed, width=120)
    assert "LIMITS MISSED" not in cost_text(bill(), width=120)


def test_batch_work_is_credited_at_the_users_value():
    credit = bill()["backfill_credit_usd_per_h"]
    said = f"batch work in idle GPU time would be worth ${credit:,.2f}/h at the value given"
    assert (said in cost_text(bill(), width=120)) == (credit > 0)


def test_a_table_too_wide_is_cut_into_tables_of_the_same_rows():
    header, rows = ["offer", *"abcdef"], [["owned", *["1,234.56"] * 6], ["reserved-1y", *["7.00"] * 6]]
    whole = fitted(header, rows, width=200)
    assert "\n\n" not in whole
    parts = fitted(header, rows, width=35).split("\n\n")
    assert len(parts) > 1
    assert all(part.splitlines()[2].startswith("owned") for part in parts)
    assert sum(part.count("1,234.56") for part in parts) == 6


@pytest.mark.parametrize("name", ["cost_tables", "cost_document"])
def test_the_examples_of_a_module_run(name):
    results = doctest.testmod(import_module(f"trilemma.report.{name}"), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0
    assert results.attempted > 0
