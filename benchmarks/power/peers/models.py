"""The simulated models as other optimizers call them, and the count of task model calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from statistics import fmean

from benchmarks.power.results import Found
from benchmarks.power.structures import NUM_LABELS, StructuredTask
from benchmarks.simulated.domains import DOMAINS, splits
from benchmarks.simulated.models import generated
from benchmarks.simulated.protocol import ChatRequest
from gpo.models.protocol import Message


class BudgetSpent(Exception):
    """The budget of task model calls does not allow these calls."""


class TaskModel:
    """Answers the ``val`` examples of a task, and counts its answers.

    A right answer is the label, or the label five times for graded scores. Wrong parts are another label.
    """

    def __init__(self, task: StructuredTask, budget: int) -> None:
        self.task, self.budget = task, budget
        self.calls = 0
        self._answered: dict[str, set[int]] = {}
        self._complete: dict[str, int] = {}

    @property
    def initial(self) -> str:
        """The prompt that every search starts from."""
        return DOMAINS[self.task.domain].initial

    @cached_property
    def examples(self) -> Sequence[tuple[str, str]]:
        """Text and target of each ``val`` example."""
        labels, num_val = DOMAINS[self.task.domain].labels, self.task.structure.num_val
        by_label: dict[str, list[str]] = {label: [] for label in labels}
        rows = splits(self.task.domain, f"power/{self.task.domain}", {"val": -(-num_val // NUM_LABELS)})["val"]
        for row in rows:
            by_label[row["label"]].append(row["text"])
        chosen = [(labels[index % NUM_LABELS], index // NUM_LABELS) for index in range(num_val)]
        return [(by_label[label][index], self._answer(label, 1.0)) for label, index in chosen]

    @cached_property
    def _index_of(self) -> Mapping[str, int]:
        return {text: index for index, (text, _) in enumerate(self.examples)}

    def reply(self, prompt: str, text: str) -> str:
        """The answer to an example."""
        prompt, index = prompt.strip(), self._index_of[text.strip()]
        self.calls += 1
        answered = self._answered.setdefault(prompt, set())
        answered.add(index)
        if len(answered) == len(self.examples):
            self._complete.setdefault(prompt, self.calls)
        return self._answer(DOMAINS[self.task.domain].labels[index % NUM_LABELS], self.task.answers(prompt)[index])

    def _answer(self, label: str, score: float) -> str:
        labels, num_parts = DOMAINS[self.task.domain].labels, self.task.structure.num_parts
        wrong = labels[(labels.index(label) + 1) % len(labels)]
        num_right = round(score * num_parts)
        return " ".join([label] * num_right + [wrong] * (num_parts - num_right))

    def require(self, num_calls: int) -> None:
        """Raise BudgetSpent if the budget does not allow so many more calls."""
        if self.calls + num_calls > self.budget:
            raise BudgetSpent(f"{self.calls} of {self.budget} calls are made, and {num_calls} more are needed")

    def found(self, prompt: str) -> Found:
        """The result of a search that ends now with this prompt."""
        return Found(prompt, self.calls)

    def best_within_budget(self, scored: Iterable[tuple[str, float]]) -> Found:
        """The best of the prompts that had answered all of ``val`` when the budget was spent; the first of equals."""
        known = [(prompt.strip(), score) for prompt, score in scored]
        in_time = [
            (prompt, score) for prompt, score in known if self._complete.get(prompt, self.budget + 1) <= self.budget
        ]
        best, _ = max(in_time, key=lambda pair: pair[1], default=(self.initial, 0.0))
        return Found(best, min(self.calls, self.budget))


def score(answer: str, target: str) -> float:
    """The share of the parts of an answer that are right."""
    return fmean(float(mine == right) for mine, right in zip(answer.split(), target.split(), strict=True))


class OptimizerModel:
    """Writes prompts as the simulated optimizer model of our own searches; the same request gets another reply."""

    def __init__(self, seed: int) -> None:
        self._seed, self._calls = seed, 0

    def reply(self, messages: Sequence[Message]) -> str:
        """The reply to a conversation."""
        self._calls += 1
        request = ChatRequest(
            model="", messages=tuple(messages), n=1, temperature=1.0, max_tokens=None, stop=(), seed=self._seed
        )
        return generated(request, 0, 0.0, 0, repetition=self._calls)
