"""Our search, by the bridges, for the DSPy program and the gepa adapter that their own optimizers improve."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from benchmarks.power.peers import dspy_search, gepa_search
from benchmarks.power.peers.models import TaskModel
from benchmarks.power.results import Found
from benchmarks.power.searches import METHODS, best_within
from benchmarks.power.structures import Structure, StructuredTask
from gpo.data.example import Example
from gpo.data.task import Split, Task
from gpo.evaluation.dspy_program import DSPyProgram
from gpo.evaluation.evaluator import Answered, Evaluation, LocalEvaluator
from gpo.evaluation.gepa_program import GEPAProgram
from gpo.evaluation.grading import RuleGrader
from gpo.evaluation.metrics import ExactScorer
from gpo.evaluation.program import Program, ProgramSpec
from gpo.models.protocol import Sampling, Usage
from gpo.prompt import Prompt
from gpo.testing.fakes import FakeModel
from gpo.user_code.functions import passed_functions


def search(method: str, structure: Structure, budget: int, seed: int) -> Found:
    """Run a search with the settings of ``efficient``."""
    task = StructuredTask(structure, seed)
    model = TaskModel(task, budget)
    with ExitStack() as stack:
        if method == "dspy_bridge":
            stack.enter_context(passed_functions({"own:program": dspy_search.program(model)}))
            spec = ProgramSpec(DSPyProgram("own", "program"), ("self",), hidden=("label",))
            rows = [{"text": text, "label": target} for text, target in model.examples]
        else:
            stack.enter_context(passed_functions({"own:adapter": gepa_search.adapter(model)}))
            spec = ProgramSpec(GEPAProgram("own", "adapter"))
            rows = gepa_search.rows(model)
        examples = tuple(
            Example(text, (target,), row=row) for (text, target), row in zip(model.examples, rows, strict=True)
        )
        scorer = ExactScorer()
        described = Task("task", Prompt(model.initial), {Split.VAL: examples}, scorer, program=spec)
        no_model = FakeModel(lambda *_: "")  # the program answers by itself
        evaluator = LocalEvaluator(described, no_model, Sampling(), RuleGrader(scorer), program=Program(spec, {}))
        return asyncio.run(best_within(METHODS["efficient"], task, budget, _Counting(evaluator)))


@dataclass
class _Counting:
    """Counts an answered example as a call of the task model, which the programs here call past our own."""

    evaluator: LocalEvaluator
    calls: int = field(default=0, init=False)

    async def evaluate(
        self, prompts: Sequence[Prompt], split: Split, indices: Sequence[int] | None = None
    ) -> Sequence[Evaluation]:
        found = await self.evaluator.evaluate(prompts, split, indices)
        self.calls += sum(len(one.score.values_E) for one in found)
        return [replace(one, usage=Usage(requests=len(one.score.values_E))) for one in found]

    async def answer(self, prompt: Prompt, split: Split, indices: Sequence[int]) -> Sequence[Answered]:
        raise NotImplementedError("no method here reflects on answers")
