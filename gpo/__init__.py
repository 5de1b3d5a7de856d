"""Gradient-inspired Prompt Optimization: better prompts for language models.

``optimize`` runs a search in this process; ``Run.open`` reads any run from its folder. The names are loaded when they
are first used, since each process of a cluster imports this package.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.api.endpoint import Endpoint
    from cluster.api.optimize import optimize, optimize_async
    from cluster.api.run import Run, ScoredPrompt
    from gpo.data.example import Example
    from gpo.errors import AnswerError, BudgetExhausted, ConfigError, GPOError
    from gpo.evaluation.program_function import Answer
    from gpo.events import CandidateScored, RunEnded, StepTaken

__all__ = [
    "Answer",
    "AnswerError",
    "BudgetExhausted",
    "CandidateScored",
    "ConfigError",
    "Endpoint",
    "Example",
    "GPOError",
    "Run",
    "RunEnded",
    "ScoredPrompt",
    "StepTaken",
    "optimize",
    "optimize_async",
]

_MODULES = {
    "Answer": "gpo.evaluation.program_function",
    "AnswerError": "gpo.errors",
    "BudgetExhausted": "gpo.errors",
    "CandidateScored": "gpo.events",
    "ConfigError": "gpo.errors",
    "Endpoint": "cluster.api.endpoint",
    "Example": "gpo.data.example",
    "GPOError": "gpo.errors",
    "Run": "cluster.api.run",
    "RunEnded": "gpo.events",
    "ScoredPrompt": "cluster.api.run",
    "StepTaken": "gpo.events",
    "optimize": "cluster.api.optimize",
    "optimize_async": "cluster.api.optimize",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'gpo' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
