"""A gepa adapter as a program of the user: a candidate is the prompts, and the adapter scores the answers itself.

The package gepa is not needed here: an adapter is known by its methods.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from gpo.errors import EvaluationError
from gpo.evaluation.program_function import Answer
from gpo.user_code.functions import FunctionReference

_FEEDBACK = "Feedback"
"""The field of a reflective record that says what is wrong with an answer."""


class GEPAProgram(FunctionReference):
    """An object with the methods of ``gepa.GEPAAdapter``, by name; loads as ``answer(prompts, example, client)``."""

    __slots__ = ()

    def load(self) -> _Answering:
        """Import the adapter.

        Raises:
            EvaluationError: there is no such module or object, or it is no adapter.
        """
        adapter = self.find()
        if isinstance(adapter, type) or not callable(getattr(adapter, "evaluate", None)):
            raise EvaluationError(
                f"{self} is {_kind(adapter)}, not an object with the methods of gepa.GEPAAdapter, such as evaluate"
            )
        return _Answering(adapter, str(self))


@dataclass(frozen=True, slots=True)
class _Answering:
    adapter: Any
    name: str

    def __call__(self, prompts: Mapping[str, str], example: Mapping[str, Any], client: Any) -> Answer:
        """Let the adapter answer and score an example, as a batch of one."""
        candidate = dict(prompts)
        batch = self.adapter.evaluate([dict(example)], candidate, capture_traces=True)
        try:
            (output,), (score,) = batch.outputs, batch.scores
            score = float(score)
        except (AttributeError, TypeError, ValueError):
            raise EvaluationError(
                f"{self.name} did not return an EvaluationBatch with one output and one score for a batch of one"
            ) from None
        if not (isfinite(score) and 0 <= score <= 1):
            raise EvaluationError(f"{self.name} scored {score:g}, which is not from 0 to 1; scale its scores")
        records = self._records(candidate, batch) if score < 1 and batch.trajectories else {}
        text = output if isinstance(output, str) else json.dumps(output, default=str, ensure_ascii=False)
        return Answer(text, "\n".join(_shown(records)), score, _feedback(records))

    def _records(self, candidate: Mapping[str, str], batch: Any) -> dict[str, Sequence[Mapping[str, Any]]]:
        make = getattr(self.adapter, "make_reflective_dataset", None)
        return dict(make(dict(candidate), batch, list(candidate))) if callable(make) else {}


def _shown(records: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """What the adapter tells a language model that reflects, without the feedback."""
    return [
        f"[{name}] {field}: {value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)}"
        for name, of_name in records.items()
        for record in of_name
        for field, value in record.items()
        if field != _FEEDBACK
    ]


def _feedback(records: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The adapter's feedback. It names a prompt in brackets if no other prompt has the same feedback."""
    names: dict[str, list[str]] = {}
    for name, of_name in records.items():
        for record in of_name:
            if feedback := str(record.get(_FEEDBACK) or "").strip():
                names.setdefault(feedback, []).append(name)
    return "; ".join(f"[{of[0]}] {said}" if len(set(of)) == 1 else said for said, of in names.items())


def _kind(found: object) -> str:
    name = type(found).__name__
    return f"the class {found.__name__}" if isinstance(found, type) else f"a{'n' * (name[0] in 'aeiou')} {name}"
