"""The HTTP interface of the evaluator."""
