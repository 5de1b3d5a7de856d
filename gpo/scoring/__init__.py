"""How the candidates of a step are scored on ``val``."""
