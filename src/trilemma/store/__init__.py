"""Runs and their answers kept: an interrupted plan goes on where it was, a repeated one is answered at once."""

from trilemma.store.remembering import Remembering
from trilemma.store.runs import Run, Status
from trilemma.store.store import Store

__all__ = ["Remembering", "Run", "Status", "Store"]
