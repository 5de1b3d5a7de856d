"""Combinations of the strategies that a configuration can name, on the simulated models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmarks.simulated.models import SimulatedModel
from cluster.config.loading import validate
from cluster.config.run import RunConfig
from cluster.runs.searches import build_gpo
from cluster.session.models import SampledModel, build_tasks
from gpo.checkpoint import Checkpoint, decode, encode
from gpo.data.task import Split, Task
from gpo.evaluation.evaluator import LocalEvaluator
from gpo.evaluation.grading import RuleGrader
from gpo.models.protocol import Sampling
from gpo.prompt import Prompt, edit_distance
from gpo.strategies.reflection import FailureReflector
from gpo.testing.fakes import WordEmbedder
from gpo.trajectory import Trajectory
from tests.configs import triage_task

STEPS, CANDIDATES, BATCH, VAL = 3, 2, 2, 4

FORMS = ("prompt", "score", "score_reflection", "feedback")
TRAJECTORIES: Mapping[str, dict[str, Any]] = {
    "none": {"kind": "none"},
    "summary": {"kind": "summary"},
    **{by: {"kind": "retrieval", "by": by, "k": 2} for by in ("recency", "importance", "mixed")},
    "k-0": {"kind": "retrieval", "k": 0},
    "k-9": {"kind": "retrieval", "k": 9},
}
REFINEMENTS: Mapping[str, dict[str, Any]] = {
    **{kind: {"kind": kind} for kind in ("generation", "editing", "paraphrase")},
    "enforced": {"kind": "generation", "enforce": True, "max_samples": 2},
}
SCHEDULES: Mapping[str, dict[str, Any]] = {
    "none": {"kind": "none"},
    **{
        f"{kind}{'-warm' * warmup}": {"kind": kind, "initial": 9, "warmup_steps": warmup, **final}
        for kind, final in (("fixed", {}), ("linear", {"final": 3}), ("cosine", {"final": 3}))
        for warmup in (0, 1)
    },
}
ACCEPTANCES = ("best_of_step", "strict_improvement", "within_error")
META_PROMPTS = ("demonstrations", "full", "compact")
POSITIONS = ("question_end", "question_begin", "before_question", "answer_begin", "system")


def config(optimizer: Mapping[str, Any] = {}, **task: Any) -> RunConfig:
    model = {"base_url": "http://127.0.0.1:9/v1", "model": "a-model"}
    return validate(
        {
            "models": {"task": model, "optimizer": model},
            "tasks": [{**triage_task(), **task}],
            "optimizer": {"steps": STEPS, "candidates": CANDIDATES, "batch_size": BATCH, **optimizer},
            "evaluation": {"val_size": VAL, "scoring": {"block": VAL}},  # each candidate answers all of val
        },
        base_dir=Path("/"),
    )


async def search(made: RunConfig, task: Task) -> Trajectory:
    """A whole search; every trajectory on the way survives being saved."""
    model = SimulatedModel()
    evaluator = LocalEvaluator(task, model, Sampling(temperature=0), RuleGrader(task.scorer))
    gpo = build_gpo(made, task, 0, evaluator, SampledModel(model, Sampling(temperature=1.0)), WordEmbedder())
    last = start = await gpo.start(task.initial)
    async for last in gpo.run(start):
        assert decode(encode(Checkpoint(last, {}))).trajectory == last
    return last


def grid() -> list[dict[str, Any]]:
    """Some of all combinations, which would take minutes; each pair of choices occurs."""
    every = [
        choice
        for choice in product(FORMS, TRAJECTORIES, REFINEMENTS, SCHEDULES, ACCEPTANCES, META_PROMPTS)
        if choice[2:4] != ("enforced", "none")  # there is nothing to enforce, and the configuration is refused
    ]
    drawn = Random(0).sample(every, 300)
    pairs = [
        {(i, j, choice[i], choice[j]) for choice in some for i in range(6) for j in range(i)} for some in (every, drawn)
    ]
    assert pairs[0] == pairs[1]
    return [
        {
            "direction": {"form": form, "trajectory": TRAJECTORIES[trajectory]},
            "refinement": REFINEMENTS[refinement],
            "schedule": SCHEDULES[schedule],
            "acceptance": {"kind": acceptance},
            "meta_prompt": {"kind": meta_prompt, "exemplars": 2},
        }
        for form, trajectory, refinement, schedule, acceptance, meta_prompt in drawn
    ]


async def test_combinations_of_optimizer_strategies_complete_and_cost_what_the_formula_says() -> None:
    (task,) = build_tasks(config())
    for optimizer in grid():
        made = config(optimizer)
        check(optimizer, made, await search(made, task))


def check(optimizer: Mapping[str, Any], made: RunConfig, last: Trajectory) -> None:
    sizes = made.optimizer.schedule.build(STEPS)
    assert [step.step_size for step in last.steps] == [sizes(step) for step in range(STEPS)], optimizer
    form = optimizer["direction"]["form"]
    reflects, answers = form == "score_reflection", form in ("score_reflection", "feedback")
    summarizes = optimizer["direction"]["trajectory"]["kind"] == "summary"
    tried = sum(len(step.candidates) for step in last.steps)
    rejected = sum(step.samples.num_rejected for step in last.steps)
    # A prompt that was given up is rejected max_samples times for one candidate.
    lost = sum(step.samples.num_malformed + step.samples.num_repeated + len(step.candidates) for step in last.steps)
    reflections = sum(step.direction.reflection is not None for step in last.steps)
    # The simulated optimizer model has something to say of every failure; a batch of two need not hold one.
    assert reflections in (range(1, STEPS + 1) if reflects else (0,)), optimizer
    assert any(step.direction.failures for step in last.steps) == answers, optimizer
    usage = last.spending
    assert usage.task.requests == VAL * (1 + tried) + answers * STEPS * BATCH, optimizer
    expected = rejected + lost + reflections + summarizes * (STEPS - 1)
    assert usage.optimizer.requests == expected, optimizer
    if not made.optimizer.refinement.enforce:
        assert rejected == 0
        assert lost == STEPS * CANDIDATES
    acceptance, k = made.optimizer.acceptance.build(), optimizer["direction"]["trajectory"].get("k", 0)
    for step in last.steps:
        before = replace(last, steps=last.steps[: step.index])
        assert len(step.direction.neighbours) == min(k, len(before.history) - 1)
        assert step.successor == acceptance.choose(before, step.candidates)
        for candidate in step.candidates:
            assert candidate.edit_distance == edit_distance(before.current.prompt, candidate.prompt)
            assert not made.optimizer.refinement.enforce or candidate.edit_distance <= (step.step_size or 0)
        assert (step.direction.summary is not None) == (summarizes and step.index > 0), optimizer


@pytest.mark.parametrize(
    ("position", "marks", "shots", "rounds"), list(product(POSITIONS, (False, True), (0, 3), (1, 2)))
)
async def test_every_position_and_format_completes(position: str, marks: bool, shots: int, rounds: int) -> None:
    made = config(position=position, question_marks=marks, shots=shots, answer={"kind": "exact", "rounds": rounds})
    (task,) = build_tasks(made)
    last = await search(made, task)
    assert len(last.steps) == STEPS
    assert last.spending.task.requests == rounds * VAL * len(last.history)
    assert len(task.examples[Split.TRAIN]) == 24 - shots
    assert last.initial.score.mean > 0  # the simulated model finds ticket and prompt, wherever they stand


def test_every_seed_has_its_own_batches() -> None:
    (task,) = build_tasks(config())
    model = SimulatedModel()
    evaluator = LocalEvaluator(task, model, Sampling(), RuleGrader(task.scorer))
    first, again, other = (
        build_gpo(config(), task, seed, evaluator, SampledModel(model, Sampling()), WordEmbedder())
        for seed in (0, 0, 1)
    )
    steps = range(12)
    assert [first.batches(step) for step in steps] == [again.batches(step) for step in steps]
    assert [first.batches(step) for step in steps] != [other.batches(step) for step in steps]


def test_a_reflection_is_made_from_as_many_failures_as_the_configuration_says() -> None:
    (task,) = build_tasks(config())
    model = SimulatedModel()
    evaluator = LocalEvaluator(task, model, Sampling(), RuleGrader(task.scorer))
    made = config({"direction": {"form": "score_reflection", "failures": 5}})
    reflector = build_gpo(made, task, 0, evaluator, SampledModel(model, Sampling()), WordEmbedder()).reflector
    assert isinstance(reflector, FailureReflector)
    assert reflector.num_failures == 5


async def test_feedback_shows_as_many_failures_as_the_configuration_says() -> None:
    (task,) = build_tasks(config())
    task = replace(task, initial=Prompt("Hm."))
    last = await search(config({"direction": {"form": "feedback", "failures": 3}, "batch_size": 8}), task)
    failures = last.steps[0].direction.failures
    assert len(failures) == 3
    assert all(failure.input and failure.target and failure.reason for failure in failures)
    assert last.steps[0].direction.reflection is None
