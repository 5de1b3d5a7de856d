"""A DSPy program as a program of the user: the instructions of its predictors are the prompts.

DSPy is imported where such a program is loaded, and nowhere else.
"""

from __future__ import annotations

import inspect
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpo.errors import AnswerError, EvaluationError
from gpo.evaluation.program_function import Answer
from gpo.user_code.functions import FunctionReference


class DSPyProgram(FunctionReference):
    """A ``dspy.Module`` of a user, by name; loads as a function ``answer(prompts, example, client)``."""

    __slots__ = ()

    def load(self) -> _Answering:
        """Import the program.

        Raises:
            EvaluationError: there is no such module or object, or it is no DSPy program.
        """
        program = super().load()
        if not hasattr(program, "named_predictors"):
            raise EvaluationError(f"{self} is a {type(program).__name__}, not an object of a class of dspy.Module")
        return _Answering(program, str(self))


@dataclass(frozen=True, slots=True)
class _Answering:
    program: Any
    name: str

    @property
    def prompts(self) -> dict[str, str]:
        """The instructions of all predictors, by the names that prompts can have.

        Raises:
            EvaluationError: two predictors would have the same name, or there is none.
        """
        return {name: predictor.signature.instructions for name, predictor in _predictors(self.program).items()}

    def __call__(self, prompts: Mapping[str, str], example: Mapping[str, Any], client: Any) -> Answer:
        """Answer an example; the value of the last output field is the answer."""
        import dspy  # type: ignore[import-not-found,unused-ignore]
        from dspy.utils.exceptions import AdapterParseError  # type: ignore[import-not-found,unused-ignore]

        # The run caches, and it has repeated what fails.
        lm = dspy.LM("openai/task", api_base=str(client.base_url), api_key=client.api_key, cache=False, num_retries=0)
        program = self.with_prompts(prompts)
        try:
            with dspy.context(lm=lm):
                prediction = program(**_inputs(program, example))
        except AdapterParseError as error:
            raise AnswerError(f"DSPy cannot read the reply: {error}") from None
        fields = dict(prediction.items()) if hasattr(prediction, "items") else {"answer": prediction}
        if not fields:
            raise EvaluationError(f"the prediction of {self.name} has no field")
        *others, (_, answer) = fields.items()
        return Answer(str(answer), "\n".join(f"{name}: {value}" for name, value in others))

    def with_prompts(self, prompts: Mapping[str, str]) -> Any:
        """A copy of the program with these instructions.

        Raises:
            EvaluationError: they are not those of its predictors.
        """
        program = self.program.deepcopy()
        predictors = _predictors(program)
        if predictors.keys() != prompts.keys():
            raise EvaluationError(
                f"the predictors of {self.name} are {', '.join(predictors)}, but the prompts are {', '.join(prompts)}; "
                "leave prompts out"
            )
        for name, predictor in predictors.items():
            predictor.signature = predictor.signature.with_instructions(prompts[name])
        return program

    def saved(self, prompts: Mapping[str, str]) -> dict[str, Any]:
        """What ``load`` of the program reads, with these instructions, in DSPy's own format."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "program.json"
            self.with_prompts(prompts).save(str(path))
            state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return state


def _predictors(program: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, predictor in program.named_predictors():
        name = re.sub(r"\W+", "_", path).strip("_")
        if name in found:
            raise EvaluationError(f"two predictors of the DSPy program would both be the prompt {name!r}; rename one")
        found[name] = predictor
    if not found:
        raise EvaluationError("the DSPy program has no predictor, and so no prompt")
    return found


def _inputs(program: Any, example: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that the program takes."""
    if hasattr(program, "signature"):
        names = set(program.signature.input_fields)
    else:
        parameters = inspect.signature(type(program).forward).parameters
        if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
            return dict(example)
        names = set(parameters)
    return {name: value for name, value in example.items() if name in names}
