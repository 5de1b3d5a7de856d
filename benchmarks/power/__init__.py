"""How good a prompt a search finds for a given number of task model calls, on simulated tasks in this process."""
