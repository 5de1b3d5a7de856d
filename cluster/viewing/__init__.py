"""``gpo view``: a local web page over the runs in a folder."""
