"""Stores of completions; see ``gpo.cache.store``."""
