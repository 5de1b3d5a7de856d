"""A search with one meta-prompt, and what its replies were like."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from benchmarks.power.searches import Method
from cluster.config import RunConfig
from cluster.runs.searches import build_gpo
from cluster.session.models import SampledModel
from gpo.data.task import Split, Task
from gpo.evaluation.evaluator import LocalEvaluator
from gpo.evaluation.grading import RuleGrader
from gpo.evaluation.metrics import Rubric
from gpo.models.embedding import StaticEmbedder
from gpo.models.protocol import ChatModel, Completion, Message, Sampling
from gpo.prompt import Prompt, edit_distance
from gpo.trajectory import Trajectory

TASK_SAMPLING = Sampling(temperature=0.0, max_tokens=8)
STEPS, CANDIDATES = 2, 4
# Wider than the rule of the program: no prompt of these tasks has a reason to say any of it.
_COPIED = re.compile(
    r"score\b|accuracy|</?(?:prompt|example|input|answer|wrong|reason)|^##|prompt:", re.MULTILINE | re.IGNORECASE
)
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "full": {"meta_prompt": {"kind": "full"}},
    "compact": {"meta_prompt": {"kind": "compact"}},
    "demonstrations": {"meta_prompt": {"kind": "demonstrations"}},
    "demonstrations, feedback": {"meta_prompt": {"kind": "demonstrations"}, "direction": {"form": "feedback"}},
}
"""Name in the table → options of ``optimizer``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one search did.

    Attributes:
        model, meta_prompt, task, seed: which search it is.
        num_replies: replies of the optimizer model.
        num_usable: those with a new prompt that keeps all rules.
        num_parroted: those with a score, a title or a tag of the request, whether it could be removed or not.
        num_repeated: those with a prompt that was known.
        num_candidates: scored prompts besides the initial one.
        num_parroted_candidates: those with a score, a title or a tag of the request.
        num_better: candidates with a higher score on ``val`` than the prompt they were made from.
        edits: words changed, for each candidate, as a share of the step size.
        num_calls: answers of the task model on ``val``.
        initial_test, best_test: scores on ``test``, in [0, 1].
        best: the best prompt.
    """

    model: str
    meta_prompt: str
    task: str
    seed: int
    num_replies: int
    num_usable: int
    num_parroted: int
    num_repeated: int
    num_candidates: int
    num_parroted_candidates: int
    num_better: int
    edits: Sequence[float]
    num_calls: int
    initial_test: float
    best_test: float
    best: str


@dataclass
class RecordingModel:
    """A model whose replies are kept."""

    model: ChatModel
    replies: list[str] = field(default_factory=list[str])

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        completion = await self.model.complete(messages, sampling)
        self.replies.append(completion.answer)
        return completion


def config(meta_prompt: str) -> RunConfig:
    """The configuration of a search; it differs from the defaults in its size alone."""
    options = {
        "optimizer": {"candidates": CANDIDATES, **VARIANTS[meta_prompt]},
        "evaluation": {"scoring": {"kind": "adaptive", "block": 4, "most": 12}},
    }
    return Method(options, 1.0, 1.0).of_steps(STEPS)


async def search(
    meta_prompt: str, task: Task, seed: int, *, model: str, optimizer: SampledModel, task_model: ChatModel
) -> Found:
    """Run a search and score its initial and best prompt on ``test``."""
    if isinstance(task.scorer, Rubric):
        raise TypeError("the tasks are graded by rules")
    recording = RecordingModel(optimizer.model)
    evaluator = LocalEvaluator(task, task_model, TASK_SAMPLING, RuleGrader(task.scorer))
    gpo = build_gpo(
        config(meta_prompt), task, seed, evaluator, SampledModel(recording, optimizer.sampling), StaticEmbedder()
    )
    trajectory = await gpo.start(task.initial)
    async with aclosing(gpo.run(trajectory)) as states:
        async for state in states:
            trajectory = state

    async def on_test(prompt: Prompt) -> float:
        return (await evaluator.evaluate([prompt], Split.TEST))[0].score.mean

    return Found(
        model=model,
        meta_prompt=meta_prompt,
        task=task.name,
        seed=seed,
        **_replies(recording.replies, trajectory),
        num_calls=trajectory.spending.task.requests,
        initial_test=await on_test(task.initial),
        best_test=await on_test(trajectory.best.prompt),
        best=trajectory.best.prompt.text,
    )


def _replies(replies: Sequence[str], trajectory: Trajectory) -> dict[str, Any]:
    steps = list(zip(trajectory.currents, trajectory.steps, strict=False))
    candidates = [candidate for step in trajectory.steps for candidate in step.candidates]
    return {
        "num_replies": len(replies),
        "num_usable": len(candidates),
        "num_parroted": sum(bool(_COPIED.search(reply)) for reply in replies),
        "num_repeated": sum(step.samples.num_repeated for step in trajectory.steps),
        "num_candidates": len(candidates),
        "num_parroted_candidates": sum(bool(_COPIED.search(one.prompt.text)) for one in candidates),
        "num_better": sum(
            candidate.score.mean > parent.score.mean for parent, step in steps for candidate in step.candidates
        ),
        "edits": [
            edit_distance(parent.prompt, candidate.prompt) / (step.step_size or 1)
            for parent, step in steps
            for candidate in step.candidates
        ],
    }
