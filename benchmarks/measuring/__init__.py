"""What the measurements share: a started endpoint, its access log, and the processes of a command."""
