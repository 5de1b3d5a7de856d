"""Prometheus metrics of runs: what there is, how processes keep count, and the exporter that tells a scraper."""
