"""``gpo sweep``: hyperparameters are tuned over populations of trajectories; one file per concept."""
