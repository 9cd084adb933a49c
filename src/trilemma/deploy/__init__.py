"""From a plan to what an engine is started with."""
