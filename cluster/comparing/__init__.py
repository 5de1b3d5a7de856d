"""``gpo compare``: several methods on the same tasks."""
