"""Answers as text, as plain data, and the schema of that data."""

from trilemma.report.simulation import series_text
from trilemma.report.text import plan_text

__all__ = ["plan_text", "series_text"]
