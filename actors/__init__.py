"""Where trajectories live: Ray actors that run searches, and the supervisor that watches over them."""
