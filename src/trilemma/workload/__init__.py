"""Recorded traces and synthetic loads as one table of requests, and what they look like."""
