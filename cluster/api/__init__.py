"""The Python interface: ``gpo.optimize``, a run as an object, and runs on a cluster."""
