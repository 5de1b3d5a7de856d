"""Limits on model calls: one limiter for all processes, and a gate in each process before its calls to one model."""
