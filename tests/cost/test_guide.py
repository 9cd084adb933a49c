"""Each example of the cost guide is run and its printed result compared."""

import doctest
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "cost.md"


def test_the_examples_of_the_guide_run():
    results = doctest.testfile(str(GUIDE), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.attempted > 30
    assert results.failed == 0
