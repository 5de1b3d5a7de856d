"""Searches by other optimizers, for the Python environment that has them. The models run in the same process."""
