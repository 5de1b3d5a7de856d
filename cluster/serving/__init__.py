"""``gpo serve``, ``gpo gateway``, and the application for ``serve deploy``."""
