"""A load generator against a live OpenAI-compatible endpoint: the requests that were simulated, sent and timed."""
