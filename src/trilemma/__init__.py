"""Which deployment serves a large language model inside its latency limits for the least money, and why."""

__version__ = "0.1.0"
