"""A run: its optimizers, its folder and its loop."""
