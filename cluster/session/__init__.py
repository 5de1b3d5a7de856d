"""What runs share while they work: Ray, Serve, the models, the evaluator, limits and budgets."""
