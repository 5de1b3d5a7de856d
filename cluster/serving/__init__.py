"""``gpo serve``, and the application that ``serve deploy`` builds."""
