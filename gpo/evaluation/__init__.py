"""Asking the task model, and grading its answers."""
