"""Steps that a search needs with and without the reasons of failures: ``python -m benchmarks.power.feedback``.

Each simulated task has hidden requirements. An answer is right if the prompt states the requirement of its example;
otherwise the metric's reason names the requirement. The simulated optimizer model can fix only what it is told about:
it adds the phrase for a requirement that a reason in its request names. If none is named, it adds any phrase that it
knows, of which few state a requirement.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from random import Random
from statistics import fmean, stdev
from typing import NamedTuple

from benchmarks.measuring.servers import ROOT
from benchmarks.measuring.tables import write_between
from benchmarks.power.searches import Method
from benchmarks.simulated.hashing import integer
from benchmarks.simulated.models import SimulatedEmbedder
from benchmarks.simulated.optimizer_requests import ReflectionRequest, read_assignment, read_request
from cluster.runs.searches import build_gpo
from cluster.session.models import SampledModel
from gpo.data.example import Example
from gpo.data.task import Split, Task
from gpo.evaluation.evaluator import LocalEvaluator
from gpo.evaluation.grading import RuleGrader
from gpo.models.protocol import Completion, Message, Sampling, Usage
from gpo.prompt import Prompt

FORMS = ("score", "score_reflection", "feedback")
TOPICS = (
    "accent", "address", "amount", "author", "brand", "budget", "bullets", "capital", "chapter", "client", "colour",
    "comma", "context", "country", "currency", "date", "deadline", "detail", "digits", "email", "emoji", "footer",
    "format", "greeting", "header", "length", "link", "list", "metric", "name", "number", "order", "plural",
    "price", "quote", "reason", "region", "season", "source", "spelling", "style", "summary", "table", "tense",
    "time", "title", "tone", "units", "version", "weight",
)  # fmt: skip
NUM_REQUIREMENTS = 6
MAX_STEPS = 60
_RULE = re.compile(r"the rule about (\w+)")
_PHRASE = re.compile(r"Mind the (\w+)\.")


class Requirements(NamedTuple):
    """The hidden requirements of a task."""

    topics: tuple[str, ...]

    @classmethod
    def of(cls, seed: int) -> Requirements:
        """Some topics, drawn by the seed."""
        return cls(tuple(Random(integer(seed, "requirements")).sample(TOPICS, NUM_REQUIREMENTS)))

    def met(self, prompt: str) -> float:
        """The share that a prompt states; its true score."""
        return len({*_PHRASE.findall(prompt)} & {*self.topics}) / len(self.topics)

    def task(self) -> Task:
        """Each example has one requirement in turn."""
        examples = {
            split: tuple(
                Example(f"{split} text {number}.", (self.topics[number % len(self.topics)],)) for number in range(size)
            )
            for split, size in ((Split.TRAIN, 24), (Split.VAL, 60), (Split.TEST, 6))
        }
        return Task("requirements", Prompt("Rewrite the text."), examples, ReasoningScorer())


class ReasoningScorer:
    """An answer is right if it heeds the requirement of its example; otherwise the reason names the requirement."""

    def score(self, answer: str, example: Example) -> float:
        """1 or 0."""
        return self.score_with_reason(answer, example)[0]

    def score_with_reason(self, answer: str, example: Example) -> tuple[float, str]:
        """1 without a reason, or 0 with one."""
        if example.target in answer.split():
            return 1.0, ""
        return 0.0, f"it breaks the rule about {example.target}"

    def follow_up(self, example: Example) -> None:
        """No question."""
        return


class TaskModel:
    """Heeds what the prompt tells it to mind."""

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        """The topics that the prompt states."""
        await asyncio.sleep(0)
        return Completion(f"Heeded: {' '.join(_PHRASE.findall(messages[-1]['content']))}", Usage(requests=1))


class OptimizerModel:
    """Adds one phrase to the current prompt: for a topic that its request names, or else any one.

    Its reflections repeat the reasons that it is shown.
    """

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        """A new prompt or a reflection."""
        await asyncio.sleep(0)
        content = messages[-1]["content"]
        named = list(dict.fromkeys(_RULE.findall(content)))
        if isinstance(read_request(messages), ReflectionRequest):
            text = f"The answers break {' and '.join(f'the rule about {topic}' for topic in named)}."
        else:
            assignment = read_assignment(messages)
            if assignment is None:
                raise ValueError("the request is no meta-prompt that the simulated optimizer model can read")
            known = _PHRASE.findall(assignment.current)
            choices = [topic for topic in named if topic not in known] or [t for t in TOPICS if t not in known]
            topic = Random(integer(sampling.seed or 0, content)).choice(choices)
            text = f"<START>{assignment.current} Mind the {topic}.<END>"
        return Completion(text, Usage(requests=1))


@dataclass(frozen=True, slots=True)
class Found:
    """What a search needed until its best prompt stated all requirements; ``MAX_STEPS`` if it never did."""

    steps: int
    task_calls: int
    optimizer_calls: int


def found(form: str, seed: int) -> Found:
    """Search with this form of direction and the meta-prompt ``full``, and the default options otherwise."""
    return asyncio.run(_found(form, seed))


async def _found(form: str, seed: int) -> Found:
    requirements = Requirements.of(seed)
    task = requirements.task()
    options = {"optimizer": {"direction": {"form": form}, "meta_prompt": {"kind": "full"}}}
    config = Method(options, 1.0, 1.0).of_steps(MAX_STEPS)
    evaluator = LocalEvaluator(task, TaskModel(), Sampling(), RuleGrader(ReasoningScorer()))
    model = SampledModel(OptimizerModel(), Sampling(temperature=1.0))
    gpo = build_gpo(config, task, seed, evaluator, model, SimulatedEmbedder())
    trajectory = await gpo.start(task.initial)
    async with aclosing(gpo.run(trajectory)) as states:
        async for trajectory in states:
            if requirements.met(trajectory.best.prompt.text) == 1:
                break
    spent = trajectory.spending
    return Found(len(trajectory.steps), spent.task.requests, spent.optimizer.requests)


def table(seeds: int) -> str:
    """A Markdown table: the means over the seeds, and the standard error of the steps."""
    lines = ["| `direction.form` | Steps | Task calls | Optimizer calls |", "| --- | ---: | ---: | ---: |"]
    for form in FORMS:
        searches = [found(form, seed) for seed in range(seeds)]
        steps = [search.steps for search in searches]
        error = stdev(steps) / len(steps) ** 0.5 if len(steps) > 1 else 0.0
        task_calls = fmean(search.task_calls for search in searches)
        optimizer_calls = fmean(search.optimizer_calls for search in searches)
        lines.append(f"| `{form}` | {fmean(steps):.1f} ± {error:.1f} | {task_calls:,.0f} | {optimizer_calls:,.0f} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and write it if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.power.feedback", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="searches for each form")
    parser.add_argument("--write", action="store_true", help="write the table into benchmarks/README.md")
    settings = parser.parse_args(arguments)
    text = table(settings.seeds)
    print(text)
    if settings.write:
        write_between(ROOT / "benchmarks" / "README.md", "feedback", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
