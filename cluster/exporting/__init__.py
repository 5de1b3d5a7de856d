"""``gpo export``: the best prompts in the formats of other programs."""
