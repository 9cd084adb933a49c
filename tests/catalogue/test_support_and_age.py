"""What formats run in, and which prices are old."""

from datetime import date

import pytest

from trilemma.catalogue.catalogue import load_catalogue
from trilemma.catalogue.staleness import stale_prices
from trilemma.catalogue.support import precision_on
from trilemma.errors import InputError

CATALOGUE = load_catalogue()


@pytest.mark.parametrize(
    ("precision", "accelerator", "compute", "native"),
    [
        ("bf16", "a100_sxm", "bf16", True),
        ("fp8", "h100_sxm", "fp8", True),
        ("fp8", "a100_sxm", "bf16", False),  # Marlin, weight-only
        ("fp8", "mi300x", "fp8", True),
        ("int8", "a100_sxm", "int8", True),
        ("int8", "b200_sxm", None, False),  # vLLM has no INT8 GEMM on Blackwell
        ("int8", "rtx_pro_6000", None, False),
        ("int4", "b200_sxm", "bf16", True),
        ("mxfp4", "h100_sxm", "bf16", False),
        ("mxfp4", "b200_sxm", "fp8", False),  # w4a8
        ("mxfp4", "mi355x", "fp4", True),
        ("nvfp4", "b200_sxm", "fp4", True),
        ("nvfp4", "h100_sxm", "bf16", False),
        ("nvfp4", "l40s", "bf16", False),
        ("nvfp4", "mi355x", None, False),
        ("nvfp4", "mi300x", None, False),
    ],
)
def test_what_a_precision_runs_in(precision, accelerator, compute, native):
    support = precision_on(CATALOGUE.precision(precision), CATALOGUE.accelerator(accelerator))
    assert (support.compute, support.native) == (compute, native)
    assert native or support.reason


def test_every_answer_is_a_format_of_the_accelerator_or_a_reason():
    for accelerator in CATALOGUE.accelerators.values():
        for precision in CATALOGUE.precisions.values():
            support = precision_on(precision, accelerator)
            assert support.compute in accelerator.flops or (support.compute is None and support.reason)


def test_fresh_prices_bring_no_warning():
    assert stale_prices([CATALOGUE.offer("h100_sxm/on-demand")], "2026-11-01") == ()


def test_an_old_price_is_named_with_its_date():
    (warning,) = stale_prices(CATALOGUE.offers_for("l40s", ["spot"]), date(2026, 11, 1))
    assert "l40s/spot" in warning
    assert "2025-08" in warning


def test_prices_age_by_the_day():
    offer = CATALOGUE.offer("h200_sxm/on-demand-single")  # 2026-09-25
    assert stale_prices([offer], "2027-03-24") == ()
    assert len(stale_prices([offer], "2027-03-25")) == 1
    assert len(stale_prices([offer], "2026-10-27", days=31)) == 1
    assert stale_prices([offer], "2020-01-01") == ()


def test_api_prices_age_too():
    price = CATALOGUE.api_price("openai/gpt-oss-120b")
    assert stale_prices([price], "2026-12-01") == ()
    assert "openai/gpt-oss-120b" in stale_prices([price], "2028-01-01")[0]


def test_more_time_never_makes_fewer_warnings():
    everything = list(CATALOGUE.offers.values())
    counts = [len(stale_prices(everything, f"{year}-06-01")) for year in range(2020, 2030)]
    assert counts == sorted(counts)
    assert counts[-1] == len(everything)


def test_a_day_that_is_none_is_refused():
    with pytest.raises(InputError, match="as_of: expected an ISO date"):
        stale_prices([], "soon")
