"""A question to plans with reasons."""
