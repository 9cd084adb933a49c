"""Which measured surface stands in for one that is missing: its own first, then kin, each said to be what it is."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilemma.catalogue import transfer
from trilemma.catalogue.catalogue import load_catalogue
from trilemma.catalogue.figure import Source
from trilemma.catalogue.surfaces import Surface
from trilemma.catalogue.transfer import ANY_ENGINE, FORMATS, LAST_RESORT, RELATIVES, find_surface

law = settings(max_examples=100, deadline=None)
CATALOGUE = load_catalogue()
H100, H200, L40S = (CATALOGUE.accelerator(name) for name in ("h100_sxm", "h200_sxm", "l40s"))
STRANGER = replace(H100, name="x1", family="unheard_of")
ENGINES = ("vllm", "trtllm", "sglang")
NAMES = ("h100_sxm", "h200_sxm", "b200_sxm", "a100_sxm", "l40s")
FORMS = ("bf16", "fp8", "fp8_block", "nvfp4", "w4a16")
KEYS = st.tuples(
    st.sampled_from(("gemm", "moe")),
    st.sampled_from(NAMES),
    st.sampled_from((*ENGINES, ANY_ENGINE)),
    st.sampled_from(FORMS),
)
QUESTIONS = st.tuples(
    st.sampled_from(("gemm", "moe")),
    st.sampled_from((H100, H200, L40S, STRANGER)),
    st.sampled_from(ENGINES),
    st.sampled_from(FORMS),
)


def surface() -> Surface:
    return Surface(knots=(np.zeros(1),), values=np.zeros(1), spread=(1.0, 1.0), points=1)


@contextmanager
def measured(*keys):
    """Only these are measured; yields key -> surface."""
    table = {key: surface() for key in keys}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "load_surfaces", lambda: table)
        transfer._find.cache_clear()
        try:
            yield table
        finally:
            transfer._find.cache_clear()


def key_of(found, table):
    """Whose surface was found, by identity."""
    return next(key for key, one in table.items() if one is found.surface)


# The order, one removed after the other ------------------------------------------------------------------------------

LADDER = (
    (("gemm", "h200_sxm", "vllm", "fp8"), Source.FITTED),
    (("gemm", "h200_sxm", ANY_ENGINE, "fp8"), Source.FITTED),
    (("gemm", "h200_sxm", "vllm", "fp8_block"), Source.DERIVED),
    (("gemm", "h200_sxm", ANY_ENGINE, "fp8_block"), Source.DERIVED),
    (("gemm", "h200_sxm", ANY_ENGINE, "bf16"), Source.DERIVED),
    (("gemm", "h100_sxm", "vllm", "fp8"), Source.DERIVED),
    (("gemm", "h100_sxm", ANY_ENGINE, "fp8"), Source.DERIVED),
    (("gemm", "h100_sxm", ANY_ENGINE, "fp8_block"), Source.DERIVED),
    (("gemm", "b200_sxm", "vllm", "fp8"), Source.GUESS),
    (("gemm", "b200_sxm", ANY_ENGINE, "fp8_block"), Source.GUESS),
    (("gemm", "a100_sxm", "vllm", "fp8"), Source.GUESS),
)


@pytest.mark.parametrize("first", range(len(LADDER)))
def test_the_nearest_of_what_is_measured_is_taken(first):
    """FP8 GEMMs of an H200 under vLLM: own, any engine's, kindred formats, the family's, another family's."""
    left = LADDER[first:]
    with measured(*(key for key, _ in reversed(left))) as table:
        found = find_surface("gemm", H200, "vllm", "fp8")
        assert key_of(found, table) == left[0][0]
        assert found.source is left[0][1]


def test_nothing_is_found_where_nothing_is_measured():
    with measured():
        assert find_surface("gemm", H100, "vllm", "bf16") is None
    with measured(("moe", "h100_sxm", "vllm", "bf16")):  # another operation
        assert find_surface("gemm", H100, "vllm", "bf16") is None
    with measured(("gemm", "h100_sxm", "sglang", "bf16")):  # another engine's alone, not pooled
        assert find_surface("gemm", H100, "vllm", "bf16") is None
    with measured(("gemm", "h100_sxm", ANY_ENGINE, "fp8")):  # BF16 takes nobody's place but its own
        assert find_surface("gemm", H100, "vllm", "bf16") is None


# What is said of it ------------------------------------------------------------------------------------------------


def test_ones_own_surface_needs_no_note():
    for engine in ("vllm", ANY_ENGINE):
        with measured(("gemm", "h100_sxm", engine, "fp8")):
            found = find_surface("gemm", H100, "vllm", "fp8")
            assert (found.source, found.note) == (Source.FITTED, "")


def test_what_stands_in_is_named():
    with measured(("prefill_attention", "h100_sxm", ANY_ENGINE, "fp8")):
        assert find_surface("prefill_attention", H100, "vllm", "fp8kv").note == "prefill attention in fp8 for fp8kv"
        assert find_surface("prefill_attention", H200, "vllm", "fp8").note == "kernels of h100_sxm"
        both = find_surface("prefill_attention", H200, "vllm", "fp8kv")
        assert both.note == "kernels of h100_sxm, prefill attention in fp8 for fp8kv"
        assert both.source is Source.DERIVED


def test_another_familys_kindred_format_is_a_guess_still():
    with measured(("gemm", "h100_sxm", ANY_ENGINE, "fp8_block")):
        assert find_surface("gemm", L40S, "vllm", "fp8").source is Source.GUESS


def test_an_accelerator_of_ones_own_takes_its_familys():
    own = replace(H100, name="h100_pcie")
    with measured(("gemm", "h100_sxm", "vllm", "bf16")):
        assert find_surface("gemm", own, "vllm", "bf16").source is Source.DERIVED
        assert find_surface("gemm", STRANGER, "vllm", "bf16").source is Source.GUESS


# Laws --------------------------------------------------------------------------------------------------------------


@law
@given(st.lists(KEYS, max_size=12, unique=True), QUESTIONS)
def test_what_is_found_is_as_good_as_it_says(keys, question):
    operation, accelerator, engine, form = question
    with measured(*keys) as table:
        found = find_surface(operation, accelerator, engine, form)
        if found is None:
            return
        whose, name, made_by, wanted = key_of(found, table)
    assert whose == operation
    assert made_by in {engine, ANY_ENGINE}
    assert wanted in {form, "bf16", *FORMATS.get(form, ())}
    if found.source is Source.FITTED:
        assert (name, wanted) == (accelerator.name, form)
    elif found.source is Source.DERIVED:
        assert name in {accelerator.name, *RELATIVES.get(accelerator.family, ())}
    else:
        assert found.source is Source.GUESS
        assert name in LAST_RESORT
    assert bool(found.note) == (found.source is not Source.FITTED)


@law
@given(st.lists(KEYS, max_size=12, unique=True), KEYS, QUESTIONS)
def test_one_more_measurement_never_makes_an_answer_worse(keys, more, question):
    with measured(*keys):
        before = find_surface(*question)
    with measured(*keys, more):
        after = find_surface(*question)
    if before is not None:
        assert after is not None
        assert after.source <= before.source


@law
@given(st.lists(KEYS, max_size=12, unique=True), QUESTIONS)
def test_the_order_of_the_file_does_not_matter(keys, question):
    with measured(*keys) as table:
        found = find_surface(*question)
        one = None if found is None else key_of(found, table)
    with measured(*reversed(keys)) as table:
        found = find_surface(*question)
        assert (None if found is None else key_of(found, table)) == one


def test_relatives_and_last_resorts_are_accelerators_and_formats_lead_to_formats():
    named = {name for names in RELATIVES.values() for name in names} | set(LAST_RESORT)
    assert named <= CATALOGUE.accelerators.keys()
    assert {a.family for a in CATALOGUE.accelerators.values()} <= RELATIVES.keys()
    for form, kindred in FORMATS.items():
        assert form not in kindred
        assert len(set(kindred)) == len(kindred)
