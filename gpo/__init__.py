"""Gradient-inspired Prompt Optimization (arXiv:2402.17564): the algorithm, as a library of values.

It does not depend on Ray or any other cluster. Begin reading at ``gpo.optimizer``.
"""
