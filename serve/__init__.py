"""The evaluator behind Ray Serve, its HTTP interface, and the embedded model that it can call.

``from ray import serve`` would shadow this package; always write ``from ray import serve as ray_serve``.
"""
