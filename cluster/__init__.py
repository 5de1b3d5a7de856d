"""The composition root: the ``gpo`` command, its configuration, and how the parts are put together."""
