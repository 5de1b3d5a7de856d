"""The evaluator behind Ray Serve, and the embedded model that it can call.

``from ray import serve`` would hide this package: always write ``from ray import serve as ray_serve``.
"""
