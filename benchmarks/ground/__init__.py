"""Predictions against measured runs that nothing is fitted on: open loop, AMD accelerators, throughput tables."""
