"""The strategies of a search: update direction, update method, step size and acceptance (paper, section 3)."""
