"""Scoring the candidates of a step on ``val``: in full, or by racing."""
