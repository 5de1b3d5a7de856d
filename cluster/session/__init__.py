"""What runs share while they work: Ray, the embedded models, the evaluator, limits and budgets."""
