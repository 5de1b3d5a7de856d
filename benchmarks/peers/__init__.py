"""Other optimizers on the simulated task: scripts for a Python that has them, and need not have this program."""
