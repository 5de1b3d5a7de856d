"""Every text that a language model is sent, as files to read: golden/.

After a deliberate change of wording, ``GPO_WRITE_GOLDEN=1 pytest tests/unit/gpo/strategies/test_golden_texts.py``
rewrites them; read the difference before you commit it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from gpo.data.constraints import Constraints
from gpo.data.example import Example
from gpo.evaluation.answer_format import AnswerFormat, Position
from gpo.evaluation.evaluator import Answered
from gpo.evaluation.prompt_template import in_messages
from gpo.models.protocol import Message, Sampling
from gpo.prompt import Prompt
from gpo.strategies.demonstrations import DemonstrationMetaPrompt
from gpo.strategies.first_prompts import GoalMetaPrompt
from gpo.strategies.meta_prompt import Brief, CompactMetaPrompt, FullMetaPrompt, Kind
from gpo.strategies.own_meta_prompt import ExtendedMetaPrompt
from gpo.strategies.refinement import Editing, Generation, Paraphrase, Refinement
from gpo.strategies.reflection import FailureReflector
from gpo.strategies.rules import Rules
from gpo.strategies.summary import RunningSummary
from gpo.testing.fakes import FakeModel
from gpo.testing.samples import candidate
from gpo.trajectory import Direction, Failure, Samples, Spending, Step, Trajectory

GOLDEN = Path(__file__).parent / "golden"

CURRENT = candidate("Let's think step by step.", 0.5, 1.0, 0.5)
NEIGHBOURS = (candidate("Think carefully, then answer.", 0.75), candidate("Answer.", 0.0, 0.0, 1.0))
REFLECTION = "It does not say in which form to answer."
FAILURES = (
    Failure("Is 7 a prime?", "Yes", "7 is a number.", "neither Yes nor No was found in the answer"),
    Failure("Is 9 a prime?", "No", "Yes, it is odd.", 'read as "Yes", but the right answer is "No"'),
)
SUMMARY = "Prompts that ask for one word do better than those that ask for reasons."
EXEMPLARS = (Example("Is 7 a prime?", ("Yes",)), Example("Is 9 a prime?", ("No", "no")))

REFINEMENTS: Mapping[str, Refinement] = {"generation": Generation(), "editing": Editing(), "paraphrase": Paraphrase()}
KINDS: tuple[Kind, ...] = ("generation", "editing", "paraphrase")


def direction(form: str, trajectory: str) -> Direction:
    reflected = form == "score_reflection"
    return Direction(
        neighbours=NEIGHBOURS if trajectory == "retrieval" else (),
        neighbour_reflections=((None, "It asks for nothing.") if reflected else (None, None))
        if trajectory == "retrieval"
        else (),
        reflection=REFLECTION if reflected else None,
        summary=SUMMARY if trajectory == "summary" else None,
    )


def brief(form: str, trajectory: str, step_size: int | None) -> Brief:
    return Brief(CURRENT, direction(form, trajectory), step_size, EXEMPLARS, Position.QUESTION_END)


def shown(messages: list[Message]) -> str:
    return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in messages) + "\n"


def meta_prompts() -> Iterator[tuple[str, str]]:
    forms, trajectories = ("prompt", "score", "score_reflection"), ("none", "summary", "retrieval")
    for form, trajectory, refinement, step_size in product(forms, trajectories, REFINEMENTS, (None, 30)):
        full = FullMetaPrompt(REFINEMENTS[refinement], show_scores=form != "prompt")
        bound = "bounded" if step_size else "unbounded"
        yield f"full/{form}-{trajectory}-{refinement}-{bound}", shown(full.messages(brief(form, trajectory, step_size)))
    feedback = replace(
        brief("feedback", "retrieval", 30), direction=replace(direction("feedback", "retrieval"), failures=FAILURES)
    )
    yield "full/feedback-retrieval-generation-bounded", shown(FullMetaPrompt().messages(feedback))
    yield "compact/feedback-retrieval-generation", shown(CompactMetaPrompt().messages(feedback))
    for kind, is_compact in (("full", False), ("compact", True)):
        from_goal = replace(
            brief("score", "none", None),
            goal="Decide whether a number is a prime.",
            rules=Rules(constraints=Constraints(max_words=20)),
        )
        yield f"{kind}/first-prompts", shown(GoalMetaPrompt(is_compact=is_compact).messages(from_goal))
    for form, trajectory, kind in product(forms, trajectories, KINDS):
        compact = CompactMetaPrompt(kind, by_score=form != "prompt")
        yield f"compact/{form}-{trajectory}-{kind}", shown(compact.messages(brief(form, trajectory, 30)))
    for form, trajectory, kind in product(forms, trajectories, KINDS):
        shows = DemonstrationMetaPrompt(kind, show_scores=form != "prompt")
        yield f"demonstrations/{form}-{trajectory}-{kind}", shown(shows.messages(brief(form, trajectory, 30)))
    yield "demonstrations/feedback-retrieval-generation", shown(DemonstrationMetaPrompt().messages(feedback))
    template = Prompt(in_messages("Think.", "Question: {{ question }}\nLet's think step by step."))
    constraints = Constraints(("JSON",), 40, ("sorry", "please"), "en")
    rules = Rules(initial=template, constraints=constraints, is_template=True)
    for name, meta_prompt in (
        ("full", FullMetaPrompt()),
        ("compact", CompactMetaPrompt()),
        ("demonstrations", DemonstrationMetaPrompt()),
        ("extended", ExtendedMetaPrompt(DemonstrationMetaPrompt(), "Our users are children.")),
    ):
        of_template = replace(
            brief("score", "none", 30),
            current=replace(CURRENT, prompt=template),
            position=Position.TEMPLATE,
            goal="Answer questions about numbers.",
            rules=rules,
            sample=2,
        )
        yield f"{name}/template", shown(meta_prompt.messages(of_template))


class _Answers:
    async def answer(self, prompt: object, split: object, indices: list[int]) -> list[Answered]:
        return [
            Answered(
                f"I would rather not say, in case {index}.", 0.0, Spending(), reason="neither Yes nor No was found"
            )
            for index in indices
        ]


async def reflections_and_summaries() -> list[tuple[str, str]]:
    model = FakeModel.scripted(["…"] * 4)
    reflector = FailureReflector(model=model, sampling=Sampling(), answerer=_Answers(), examples=EXEMPLARS)
    await reflector.reflect(CURRENT, [0, 1], seed=0)
    directed = Direction(summary=SUMMARY, reflection=REFLECTION)
    for known, show_scores in ((Direction(), True), (directed, True), (directed, False)):
        step = Step(0, 30, known, NEIGHBOURS, NEIGHBOURS[0], Samples(), Spending())
        summarizer = RunningSummary(model=model, sampling=Sampling(), show_scores=show_scores)
        await summarizer.summarize(Trajectory(CURRENT, (step,)), seed=0)
    names = ("reflection", "summary-of-the-first-step", "summary-of-a-later-step", "summary-without-scores")
    return [(name, shown(list(messages))) for name, (messages, _) in zip(names, model.calls, strict=True)]


def questions() -> Iterator[tuple[str, str]]:
    question = Example("Is 11 a prime?", ("Yes",))
    for position, marks, shots in product(Position, (False, True), (0, 2)):
        if position is Position.TEMPLATE:
            continue
        asked = AnswerFormat(position, question_marks=marks, demonstrations=EXEMPLARS[:shots])
        name = f"questions/{position}{'-marked' if marks else ''}{'-two-shot' if shots else ''}"
        yield name, shown(asked.messages(Prompt("Think."), question))
    template = Prompt(in_messages("Think.", "Question: {{ question }}\nAnswer:"))
    *exemplars, last = (
        replace(one, placeholder_texts=(("{{ question }}", one.input),)) for one in (*EXEMPLARS, question)
    )
    for demonstrations in ((), tuple(exemplars)):
        asked = AnswerFormat(Position.TEMPLATE, demonstrations=demonstrations)
        yield f"questions/template{'-two-shot' if demonstrations else ''}", shown(asked.messages(template, last))


async def test_every_text_equals_its_stored_version() -> None:
    texts = dict([*meta_prompts(), *await reflections_and_summaries(), *questions()])
    if os.environ.get("GPO_WRITE_GOLDEN"):
        for name, text in texts.items():
            path = GOLDEN / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        pytest.skip("rewritten")
    stored = {str(path.relative_to(GOLDEN).with_suffix("")): path for path in GOLDEN.rglob("*.txt")}
    assert texts.keys() == stored.keys()
    for name, text in texts.items():
        assert text == stored[name].read_text(encoding="utf-8"), name


def test_scores_are_shown_on_the_scale_that_the_text_states() -> None:
    for name, text in meta_prompts():
        scale, scores = "from 0 (none) to 100 (all)" in text, "Score: 66.7" in text
        is_scored = name.startswith("full/") and "/prompt-" not in name and "first-prompts" not in name
        assert scale == scores == is_scored
