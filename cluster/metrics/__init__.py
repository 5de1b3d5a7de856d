"""Prometheus metrics of a run, and ``gpo monitor``."""
