"""The published schema agrees with the reader, and the shipped scenarios with both."""

from dataclasses import fields
from pathlib import Path

import jsonschema
import pytest

from trilemma.catalogue.economics import Economics
from trilemma.errors import InputError
from trilemma.scenario import load_scenario, scenario_from, scenario_schema
from trilemma.scenario.document import read_document
from trilemma.scenario.economics import EconomicsOverrides
from trilemma.scenario.schema import schema_text

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
MINIMAL = {"version": 1, "model": "m", "workload": {"trace": "azure_2023_conv"}}


@pytest.fixture(scope="module")
def schema():
    schema = scenario_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_published_schema_is_the_present_one():
    published = (ROOT / "docs" / "scenario.schema.json").read_text(encoding="utf-8")
    assert published == schema_text(), "run: python -m trilemma.scenario > docs/scenario.schema.json"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_shipped_scenarios_pass_reader_and_schema(path, schema):
    scenario = load_scenario(path)
    assert scenario.name == path.stem
    schema.validate(scenario.resolved())
    schema.validate(read_document(path.read_text(encoding="utf-8"), name=path.name).data)


def test_the_four_shipped_scenarios():
    assert [path.stem for path in EXAMPLES] == ["batch-summaries", "chat-70b", "code-32b", "moe-deepseek"]
    chat, code, batch = (
        load_scenario(ROOT / "examples" / f"{n}.yaml") for n in ("chat-70b", "code-32b", "batch-summaries")
    )
    assert chat.workload.profile.value.peak_over_mean == 1.7
    assert chat.workload.profile.trace_is == "peak"
    assert chat.limits == ("ttft p99 <= 1 s", "itl p99 <= 60 ms")
    assert 3.2 < max(chat.workload.profile.multipliers) / min(chat.workload.profile.multipliers) < 3.4
    assert code.workload.profile.value.peak_over_mean == 2.8
    assert batch.limits == ("deadline <= 6 h",)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_trace_is_the_only_scalar_that_names_a_file(path):
    def keys(value):
        if isinstance(value, dict):
            return [*value, *(key for child in value.values() for key in keys(child))]
        return [key for child in value for key in keys(child)] if isinstance(value, list) else []

    document = load_scenario(path).resolved()
    assert [key for key in keys(document) if key in {"trace", "path", "file"}] == ["trace"] * (
        "trace" in document["workload"]
    )


@pytest.mark.parametrize(
    "change",
    [
        {"colour": "red"},
        {"version": 2},
        {"seed": -1},
        {"space": {"max_gpus": 0}},
        {"space": {"accelerators": []}},
        {"space": {"accelerators": "h100"}},
        {"sizing": {"headroom": 25}},
        {"economics": {"pue": 0.5}},
        {"workload": {"trace": "azure_2023_conv", "window": {"start": "500"}}},
        {"workload": {"trace": "azure_2023_conv", "window": {"start": 500}}},
        {"workload": {"arrivals": {"process": "poison"}}},
        {"workload": {"arrivals": {"process": "poisson"}, "sessions": {"turns": 5}}},
    ],
    ids=str,
)
def test_what_the_schema_refuses_the_reader_refuses(schema, change):
    document = MINIMAL | change
    assert not schema.is_valid(document)
    with pytest.raises(InputError):
        scenario_from(document, folder=Path())


def test_economics_has_the_catalogues_fields_and_no_other():
    names = {field.name for field in fields(Economics)} - {"figures"}
    assert set(EconomicsOverrides.model_fields) == names | {"grid_region"}
