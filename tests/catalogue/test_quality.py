"""The table of accuracy kept after quantisation: sane rows, catalogue names, and nothing where nothing was measured."""

import tomllib
from importlib.resources import files

import pytest

from trilemma.catalogue.catalogue import load_catalogue
from trilemma.catalogue.figure import Source
from trilemma.catalogue.quality import FILE, FP8_KV, SIZE_CLASSES, quality_of, schemes, size_class

CATALOGUE = load_catalogue()
RAW = tomllib.loads(files("trilemma.catalogue").joinpath("data", FILE).read_text(encoding="utf-8"))
ROWS = [(name, size, row) for name, sizes in RAW["schemes"].items() for size, row in sizes.items()]
A_MODEL_OF = {"up_to_3b": 1e9, "4b_to_15b": 8e9, "16b_to_75b": 70e9, "above_75b": 400e9}
WITHOUT_PRECISION = {FP8_KV, "int8_w8a16", "int4_w4a8"}


@pytest.mark.parametrize(("name", "size", "row"), ROWS, ids=[f"{name}-{size}" for name, size, _ in ROWS])
def test_every_row_is_read_as_written_and_bounds_its_mean(name, size, row):
    quality = quality_of(name, A_MODEL_OF[size])
    assert quality is not None
    assert quality.recovery_pct == row["recovery_pct"]
    assert 80 < quality.low <= quality.recovery_pct <= quality.high < 110
    assert 1 <= quality.models <= quality.count
    assert quality.source is Source.MEASURED
    assert quality.as_of
    assert quality.reference
    assert quality.loss_pct == max(0.0, 100 - quality.recovery_pct)


@pytest.mark.parametrize(("name", "size", "row"), ROWS, ids=[f"{name}-{size}" for name, size, _ in ROWS])
def test_a_row_of_few_models_says_so(name, size, row):
    assert (row["models"] < 3) == ("model" in row.get("note", "").split("only")[0] and "only" in row.get("note", ""))


def test_schemes_are_precisions_of_the_catalogue_or_known_besides():
    assert set(schemes()) - WITHOUT_PRECISION <= set(CATALOGUE.precisions)
    assert {"fp8", "int8", "int4", "nvfp4"} <= set(schemes())
    assert set(RAW["references"]) == {key for _, _, row in ROWS for key in row["references"]}
    assert {size for _, size, _ in ROWS} <= set(SIZE_CLASSES)


@pytest.mark.parametrize(
    ("precision", "total_params"),
    [("nvfp4", 1e9), ("mxfp4", 117e9), ("bf16", 8e9), ("fp8_kv", 8e9), ("no such format", 8e9)],
)
def test_nothing_measured_is_none_and_never_a_guess(precision, total_params):
    assert quality_of(precision, total_params) is None


@pytest.mark.parametrize(
    ("total_params", "expected"),
    [
        (0.5e9, "up_to_3b"), (3.21e9, "up_to_3b"), (4.02e9, "4b_to_15b"), (15.96e9, "4b_to_15b"),
        (20.9e9, "16b_to_75b"), (72.7e9, "16b_to_75b"), (116.8e9, "above_75b"), (1e12, "above_75b"),
    ],
)  # fmt: skip
def test_size_classes_hold_the_models_named_after_them(total_params, expected):
    assert size_class(total_params) == expected


@pytest.mark.parametrize("total_params", [0, -1e9, float("nan")])
def test_a_model_without_parameters_is_refused(total_params):
    with pytest.raises(ValueError, match="above 0"):
        quality_of("fp8", total_params)


def test_names_are_found_in_any_case():
    assert quality_of("FP8", 8e9) == quality_of("fp8", 8e9)


def test_what_is_known_of_formats():
    """Four bits cost small models most; FP8 costs less than a percent at any size."""
    int4 = [quality_of("int4", params) for params in A_MODEL_OF.values()]
    losses = [q.loss_pct for q in int4 if q is not None]
    assert len(losses) == 4
    assert losses == sorted(losses, reverse=True)
    for params in A_MODEL_OF.values():
        fp8 = quality_of("fp8", params)
        assert fp8 is not None
        assert fp8.loss_pct < 1
