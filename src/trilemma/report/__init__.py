"""Answers as text, as plain data, and the schema of that data."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trilemma.report.classes import classes_text
    from trilemma.report.cost_comparison_text import comparison_text
    from trilemma.report.cost_text import cost_text
    from trilemma.report.simulation import series_text
    from trilemma.report.text import plan_text

__all__ = ["classes_text", "comparison_text", "cost_text", "plan_text", "series_text"]

_HOME = {
    "classes_text": "classes",
    "comparison_text": "cost_comparison_text",
    "cost_text": "cost_text",
    "plan_text": "text",
    "series_text": "simulation",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    """Read where it is used: what prints JSON needs no words."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
