"""``python -m cluster.cli``: the command where no console script is installed, as in a submitted job."""

from cluster.cli import main

main()
