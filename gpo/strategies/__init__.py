"""The strategies of a search, one file for each kind: direction, method, acceptance."""
