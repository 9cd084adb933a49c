"""How work is asked to end with what it has: a progress function raises Interrupted."""

from trilemma.planner.plan import Interrupted

__all__ = ["Interrupted"]
