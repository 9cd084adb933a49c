"""The public functions, which the command line and notebooks call.

Loaded one by one: pricing a catalogue row must not wait for the simulator to be imported.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trilemma.api.comparing import compare
    from trilemma.api.health import compile_simulator
    from trilemma.api.lookup import catalogue, catalogue_digest, workload
    from trilemma.api.planning import plan
    from trilemma.api.predicting import predict, predict_one
    from trilemma.api.pricing import cost
    from trilemma.api.simulating import RunFiles, simulate

__all__ = [
    "RunFiles",
    "catalogue",
    "catalogue_digest",
    "compare",
    "compile_simulator",
    "cost",
    "plan",
    "predict",
    "predict_one",
    "simulate",
    "workload",
]

_HOME = {
    "catalogue": "lookup",
    "catalogue_digest": "lookup",
    "workload": "lookup",
    "compile_simulator": "health",
    "plan": "planning",
    "predict": "predicting",
    "predict_one": "predicting",
    "cost": "pricing",
    "compare": "comparing",
    "simulate": "simulating",
    "RunFiles": "simulating",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
