"""How much may be asked of an endpoint, and who may ask next: one limiter, and a gate before each process's calls."""
