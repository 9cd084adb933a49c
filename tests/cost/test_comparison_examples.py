"""The examples in the docstrings of the comparison's modules are run."""

import doctest
from importlib import import_module

import pytest

MODULES = (
    "break_even", "cash_flow", "curve", "day", "draws", "effort", "inputs", "negotiation", "subject", "tornado",
    "uncertainty",
)  # fmt: skip
WITH_EXAMPLES = {"cash_flow", "draws", "effort", "negotiation", "subject"}


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name):
    results = doctest.testmod(import_module(f"trilemma.cost.{name}"), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0
    assert (results.attempted > 0) == (name in WITH_EXAMPLES)
