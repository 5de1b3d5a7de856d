"""Scripts that run other optimizers on the simulated task, for a Python environment that has those optimizers."""
