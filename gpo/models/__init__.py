"""Chat and embedding models, and the decorators around a call."""
