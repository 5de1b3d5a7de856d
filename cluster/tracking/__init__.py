"""Runs and trials in MLflow."""
