"""Runs as they are watched from elsewhere: Prometheus, ``gpo monitor`` and MLflow."""
