"""From files to checked splits of examples."""
