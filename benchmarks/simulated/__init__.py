"""A simulated language model behind an OpenAI-compatible endpoint: deterministic, and cheap per request."""
