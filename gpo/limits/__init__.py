"""How much may be asked of an endpoint, and who may ask next: one authority, and a gate before each process's calls."""
