"""The requests come from the classes that send them, so a wording that the simulation cannot read fails here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from benchmarks.simulated.optimizer_requests import (
    GAIN_PER_REWRITING,
    Advice,
    Assignment,
    OptimizerRequest,
    ReflectionRequest,
    SummaryRequest,
    read_advice,
    read_assignment,
    read_request,
)
from gpo.data.example import Example
from gpo.data.task import Split
from gpo.evaluation.answer_format import AnswerFormat, Position
from gpo.evaluation.evaluator import Answered
from gpo.models.protocol import Message, Sampling
from gpo.prompt import Prompt
from gpo.strategies.demonstrations import DemonstrationMetaPrompt
from gpo.strategies.meta_prompt import Brief, CompactMetaPrompt, FullMetaPrompt, Kind, MetaPrompt
from gpo.strategies.refinement import Editing, Generation, Paraphrase, Refinement
from gpo.strategies.reflection import FailureReflector
from gpo.strategies.summary import RunningSummary
from gpo.testing.fakes import FakeModel
from gpo.testing.samples import candidate, trajectory
from gpo.trajectory import Direction, Failure, Spending, Trajectory

INITIAL = "Classify the support ticket into one of: billing, technical, shipping, account."
GOOD = "Read carefully.\n\n## Rules\nAt most 3 words."
EXAMPLES = [
    Example("Hello, my invoice has been bothering me since Monday.", ("billing",)),
    Example("Hi there, my login has been bothering me since Monday.", ("account",)),
    Example("Last night, we spoke of the drizzle again.", ("rain",)),
]
CURRENT, WORSE, BETTER = candidate(INITIAL, 0.3), candidate("Guess.", 0.1), candidate(GOOD, 0.7)
REFLECTION, SUMMARY = Advice(("only",), ("poem", "joke")), Advice(("exactly", "label"))
EARLIER = Advice((), ("guess",))
DIRECTIONS = {
    "alone": (Direction(), Advice()),
    "history": (Direction((BETTER, WORSE), (None, None)), Advice()),
    "reflection": (Direction(reflection=f"It is vague. {REFLECTION.worded()}"), REFLECTION),
    "summary": (Direction(summary=SUMMARY.worded()), SUMMARY),
    "everything": (
        Direction((BETTER, WORSE), (None, EARLIER.worded()), REFLECTION.worded(), SUMMARY.worded()),
        Advice(("exactly", "label", "only"), ("guess", "poem", "joke")),
    ),
}
REFINEMENTS: dict[Kind, Refinement] = {"generation": Generation(), "editing": Editing(), "paraphrase": Paraphrase()}


def messages(meta_prompt: MetaPrompt, direction: Direction, step_size: int | None = None) -> list[Message]:
    return meta_prompt.messages(Brief(CURRENT, direction, step_size, EXAMPLES, Position.QUESTION_BEGIN))


@pytest.mark.parametrize("kind", REFINEMENTS)
@pytest.mark.parametrize("step_size", [None, 1, 17])
@pytest.mark.parametrize("shown", DIRECTIONS)
@pytest.mark.parametrize("show_scores", [True, False])
def test_full_meta_prompts_are_read(kind: Kind, step_size: int | None, shown: str, show_scores: bool) -> None:
    direction, advice = DIRECTIONS[shown]
    scored = [("Guess.", 10.0), (GOOD, 70.0)] if direction.neighbours else []
    scores = (*scored, (INITIAL, 30.0)) if show_scores else ()
    asked = messages(FullMetaPrompt(REFINEMENTS[kind], show_scores), direction, step_size)
    assert read_request(asked) == Assignment(INITIAL, scores, advice, step_size, kind)


@pytest.mark.parametrize("kind", REFINEMENTS)
@pytest.mark.parametrize("shown", DIRECTIONS)
def test_compact_meta_prompts_are_read(kind: Kind, shown: str) -> None:
    direction, said = DIRECTIONS[shown]
    path = [("Guess.", 0.0), (GOOD, GAIN_PER_REWRITING), (INITIAL, 2 * GAIN_PER_REWRITING)]
    advice = Advice(said.say, tuple(word for word in said.avoid if word != "guess"))  # reflections on others: not shown
    asked = messages(CompactMetaPrompt(kind), direction)
    assert read_request(asked) == Assignment(
        INITIAL, tuple(path) if direction.neighbours else (), advice, step_size=None, kind=kind
    )


@pytest.mark.parametrize("kind", REFINEMENTS)
@pytest.mark.parametrize("step_size", [None, 17])
@pytest.mark.parametrize("shown", DIRECTIONS)
@pytest.mark.parametrize("show_scores", [True, False])
def test_demonstrating_meta_prompts_are_read(kind: Kind, step_size: int | None, shown: str, show_scores: bool) -> None:
    direction, said = DIRECTIONS[shown]
    scored = [("Guess.", 10.0), (GOOD, 70.0)] if direction.neighbours else []
    scores = (*scored, (INITIAL, 30.0)) if show_scores else ()
    asked = messages(DemonstrationMetaPrompt(kind, show_scores), direction, step_size)
    assert read_request(asked) == Assignment(INITIAL, scores, said, step_size, kind)


def test_a_prompt_of_several_lines_is_read_completely() -> None:
    demonstrations = (DemonstrationMetaPrompt(), DemonstrationMetaPrompt(show_scores=False))
    for meta_prompt in (FullMetaPrompt(), FullMetaPrompt(show_scores=False), CompactMetaPrompt(), *demonstrations):
        asked = meta_prompt.messages(Brief(BETTER, Direction((WORSE,), (None,)), 5, EXAMPLES, Position.SYSTEM))
        assignment = read_assignment(asked)
        assert assignment is not None
        assert assignment.current == GOOD


def test_failures_are_read_as_what_a_reflection_is_made_from() -> None:
    failures = tuple(Failure(example.input, example.target, "Hm.", "no label was found") for example in EXAMPLES)
    direction = Direction((WORSE,), (None,), failures=failures)
    for meta_prompt in (FullMetaPrompt(), DemonstrationMetaPrompt()):
        assignment = read_assignment(meta_prompt.messages(Brief(BETTER, direction, 5, EXAMPLES, Position.SYSTEM)))
        assert assignment is not None
        assert assignment.current == GOOD
        assert assignment.failures == ReflectionRequest(GOOD, "tickets", len(EXAMPLES))


async def reflection_request(
    current: str, examples: Sequence[Example], num_failures: int = 3
) -> OptimizerRequest | None:
    class Wrong:
        async def answer(self, prompt: Prompt, split: Split, indices: Sequence[int]) -> Sequence[Answered]:
            return [Answered("Hm.", 0.0, Spending(), reason="no label was found") for _ in indices]

    model = FakeModel.scripted(["Well."])
    reflector = FailureReflector(
        model=model, sampling=Sampling(), answerer=Wrong(), examples=examples, num_failures=num_failures
    )
    await reflector.reflect(candidate(current, 0.3), range(len(examples)), seed=1)
    return read_request(model.calls[0][0])


async def test_requests_for_a_reflection_are_read() -> None:
    assert await reflection_request(GOOD, EXAMPLES) == ReflectionRequest(GOOD, "tickets", 3)
    assert await reflection_request(INITIAL, EXAMPLES[::-1], 1) == ReflectionRequest(INITIAL, "weather", 1)
    assert await reflection_request(INITIAL, [Example("1 + 1 = ?", ("2",))]) == ReflectionRequest(INITIAL, None, 1)


async def summary_request(search: Trajectory) -> OptimizerRequest | None:
    model = FakeModel.scripted(["Well."])
    await RunningSummary(model=model, sampling=Sampling()).summarize(search, seed=1)
    return read_request(model.calls[0][0])


async def test_requests_for_a_summary_are_read() -> None:
    search = trajectory(CURRENT, [BETTER, WORSE])
    before = ((INITIAL, 30.0), ("Guess.", 10.0), (GOOD, 70.0))
    assert await summary_request(search) == SummaryRequest(Advice(), Advice(), before)
    directed = replace(search.steps[0], direction=DIRECTIONS["everything"][0])
    assert await summary_request(replace(search, steps=(directed,))) == SummaryRequest(SUMMARY, REFLECTION, before)
    assert await summary_request(trajectory(CURRENT, [])) == SummaryRequest(Advice(), Advice(), before[:1])


def test_questions_to_a_task_model_are_not_optimizer_requests() -> None:
    prompts = (INITIAL, GOOD, "Rewrite this instruction.", "## What to do\nSay the label.", "## Current prompt")
    for prompt in prompts:
        for position in Position:
            form = AnswerFormat(position, demonstrations=tuple(EXAMPLES[1:]))
            assert read_request(form.messages(Prompt(prompt), EXAMPLES[0])) is None
    assert read_request([]) is None


def test_advice_is_read_from_its_own_words() -> None:
    for advice in (Advice(), Advice(("a",)), Advice((), ("b", "c")), Advice(("a", "d", "e"), ("b",))):
        assert read_advice(f"Once more: {advice.worded()} Done.") == advice
    assert read_advice("It should say more.", "It should say 'a'.", "It should say 'a', 'b'.").say == ("a", "a", "b")
