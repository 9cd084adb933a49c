"""Answers as text, as plain data, and the schema of that data."""

from trilemma.report.classes import classes_text
from trilemma.report.cost_comparison_text import comparison_text
from trilemma.report.cost_text import cost_text
from trilemma.report.simulation import series_text
from trilemma.report.text import plan_text

__all__ = ["classes_text", "comparison_text", "cost_text", "plan_text", "series_text"]
