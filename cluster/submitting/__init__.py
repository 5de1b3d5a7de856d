"""``gpo submit``: what is shipped, to whom, and how the job is followed."""
