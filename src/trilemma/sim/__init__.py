"""Requests and a deployment's step times to timings: an exact engine simulator."""
