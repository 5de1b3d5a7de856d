"""Simulated language models behind an OpenAI-compatible endpoint: deterministic and cheap."""
