"""Stores of completions; see ``gpo.completion_store``."""
