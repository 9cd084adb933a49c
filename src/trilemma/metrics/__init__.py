"""Timings to percentiles, goodput and limits; the same for simulated and measured runs."""
