"""The scenario file: what a user asks, read strictly, with every error at its line and key."""

from trilemma.scenario.load import load_scenario, scenario_from
from trilemma.scenario.model import Scenario
from trilemma.scenario.schema import scenario_schema

__all__ = ["Scenario", "load_scenario", "scenario_from", "scenario_schema"]
