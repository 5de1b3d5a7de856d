"""The comparison of meta-prompts counts what replies were like."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import pytest

from benchmarks.meta_prompts.__main__ import table
from benchmarks.meta_prompts.searches import search
from benchmarks.meta_prompts.tasks import NAMES, NUM_TEST, NUM_TRAIN, NUM_VAL, make_task
from cluster.session.models import SampledModel
from gpo.data.task import Split
from gpo.models.protocol import Message, Sampling
from gpo.testing.fakes import FakeModel, Reply

GOOD = "What is the name of the city in the text?"


@pytest.mark.parametrize("name", NAMES)
def test_the_splits_of_a_task_share_no_example(name: str) -> None:
    examples = make_task(name).examples
    assert [len(examples[split]) for split in Split] == [NUM_TRAIN, NUM_VAL, NUM_TEST]
    inputs = [example.input for split in Split for example in examples[split]]
    assert len(set(inputs)) == len(inputs)


async def test_replies_and_scores_of_a_search_are_counted() -> None:
    task = make_task("city")
    answers = {example.input: example.target for split in Split for example in task.examples[split]}
    numbers = count()

    def write(messages: Sequence[Message], sampling: Sampling) -> Reply:
        replies = {0: GOOD, 1: f"{GOOD}\nScore: 12.5", 2: "Is it this one? Score: 12.5 or more", 3: "Where?"}
        return f"<START>{replies.get(next(numbers), task.initial.text)}<END>"

    def answer(messages: Sequence[Message], sampling: Sampling) -> Reply:
        prompt, _, given = messages[-1]["content"].partition("\n")
        return answers[given] if prompt == GOOD else "Nowhere."

    found = await search(
        "full", task, 0, model="m", optimizer=SampledModel(FakeModel(write), Sampling()), task_model=FakeModel(answer)
    )
    assert (found.num_replies, found.num_usable, found.num_parroted, found.num_repeated) == (8, 2, 2, 5)
    assert (found.num_candidates, found.num_parroted_candidates, found.num_better) == (2, 0, 1)
    assert (found.initial_test, found.best_test, found.best) == (0.0, 1.0, GOOD)
    assert "| m | full | 1 | 25% | 25% | 62% |" in table([found])
