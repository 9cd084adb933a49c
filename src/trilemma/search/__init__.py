"""Searching and ranking points of any kind; knows nothing of language models."""
