"""Code of the user: metrics, parsers, programs and strategies, loaded by name."""
