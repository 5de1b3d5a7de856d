"""``gpo serve``, and the application for ``serve deploy``."""
