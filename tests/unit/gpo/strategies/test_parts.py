"""Prompts of several parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpo.data.constraints import Constraints
from gpo.data.example import Example
from gpo.errors import ModelUnavailable
from gpo.evaluation.answer_format import Position
from gpo.models.protocol import Message, Sampling
from gpo.prompt import Prompt, edit_distance, joined_parts, parts_of
from gpo.strategies.demonstrations import DemonstrationMetaPrompt
from gpo.strategies.parts import chosen_parts, direction_of, trajectory_of, with_part
from gpo.strategies.proposer import Proposals, SamplingProposer
from gpo.strategies.retrieval import RecencyRetriever
from gpo.strategies.rules import Rules
from gpo.testing.fakes import FakeModel
from gpo.testing.samples import candidate
from gpo.trajectory import Candidate, Direction, Failure, OtherPart, Samples, Spending, Step, Trajectory

NAMES = ("plan", "answer")
PARTS = {"plan": "Write a query.", "answer": "Answer in one word."}
CURRENT = candidate(joined_parts(PARTS), 0.5)
EXAMPLE = Example("Which river flows through Ulm on its way to the sea?", ("Danube",))

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
lines = st.sampled_from(["", " ", "[[plan]]", "[[plan]] x", "x [[plan]]", "[[a b]]", "text", "{{ plan }}", "\t[[x]]"])
texts = st.lists(lines, max_size=5).map("\n".join)


@given(st.dictionaries(names, texts, min_size=1, max_size=4))
def test_named_prompts_survive_as_one_text_or_are_found_not_to(parts: Mapping[str, str]) -> None:
    stripped = {name: text.strip() for name, text in parts.items()}
    has_heading = any(
        line.rstrip(" \t") in ("[[plan]]", "[[x]]") for text in stripped.values() for line in text.split("\n")
    )
    assert (parts_of(joined_parts(parts)) == stripped) == (not has_heading)


@pytest.mark.parametrize("text", ["", "Think.", "Think.\n[[plan]]\nx", "[[plan]]\nx\n\n[[plan]]\ny", "[[plan]] x"])
def test_a_text_without_headings_has_no_parts(text: str) -> None:
    assert parts_of(text) == {}


def test_only_the_words_of_the_changed_part_count() -> None:
    changed = with_part(CURRENT.prompt, "answer", " Answer in two words. ")
    assert parts_of(changed.text) == {"plan": "Write a query.", "answer": "Answer in two words."}
    assert edit_distance(CURRENT.prompt, changed) == 2
    with pytest.raises(ValueError, match=r"\[\[name\]\]"):
        with_part(CURRENT.prompt, "answer", "Answer.\n[[plan]]\nIgnore.")


def failures(*reasons: str) -> list[Failure]:
    return [Failure("input", "target", "answer", reason) for reason in reasons]


@pytest.mark.parametrize(
    ("reasons", "chosen"),
    [
        ((), "answer"),  # step 5: in turn
        (("[plan] no year", "[plan] no name", "wrong"), "plan"),
        (("[plan] no year", "wrong"), "answer"),  # not most of them
        (("[plan] no year", "[answer] too long", "[plan] no name"), "answer"),  # they do not agree
        (("[plan] and [answer]", "[plan] and [answer]"), "answer"),  # both
        (("plan: no year",), "answer"),  # not in brackets
        (("[answer] too long",), "answer"),
    ],
)
def test_a_step_rewrites_the_part_that_most_reasons_name_or_each_in_turn(reasons: Sequence[str], chosen: str) -> None:
    assert chosen_parts(NAMES, 5, 8, failures(*reasons)) == (chosen,)


def test_the_first_half_of_a_search_rewrites_two_parts_in_a_step() -> None:
    assert [chosen_parts("abc", step, 5, ()) for step in range(5)] == [
        ("a", "b"),
        ("b", "c"),
        ("c", "a"),
        ("a",),
        ("b",),
    ]
    assert chosen_parts(NAMES, 1, 8, ()) == ("answer", "plan")
    assert chosen_parts(("only",), 0, 8, ()) == ("only",)
    assert chosen_parts(NAMES, 0, 8, failures("[answer] too long")) == ("answer",)


def trajectory(candidates: Sequence[Candidate], successor: int, initial: Candidate) -> Trajectory:
    step = Step(0, None, Direction(), tuple(candidates), candidates[successor], Samples(), Spending())
    return Trajectory(initial, (step,))


def both(plan: str, answer: str, score: float) -> Candidate:
    return candidate(joined_parts({"plan": plan, "answer": answer}), score)


async def test_past_prompts_are_chosen_by_the_text_of_the_part_and_the_best_of_equal_texts_is_shown() -> None:
    first = trajectory([both("b", "x", 0.2), both("a", "x", 0.1)], successor=0, initial=both("a", "w", 0.1))
    found = first.append(
        replace(first.steps[0], index=1, candidates=(both("b", "y", 0.3), both("c", "x", 0.25)), successor=CURRENT)
    )
    seen, whole = trajectory_of(found, "plan")
    assert [(one.prompt.text, one.score.mean) for one in seen.history] == [("a", 0.1), ("b", 0.3), ("c", 0.25)]
    assert seen.current.prompt.text == PARTS["plan"]
    assert whole[Prompt("b")] == both("b", "y", 0.3)
    (nearest,) = await RecencyRetriever().retrieve(seen, k=1)
    shown = direction_of(Direction((whole[nearest.prompt],), ("too short",), part="plan"))
    assert [one.prompt.text for one in shown.neighbours] == ["c"]
    assert shown.neighbour_reflections == ("too short",)


async def test_texts_that_only_other_parts_distinguish_from_the_current_one_are_not_shown_again() -> None:
    found = trajectory([both("a", "x", 0.2), both("b", "w", 0.1)], successor=0, initial=both("a", "w", 0.1))
    seen, _ = trajectory_of(found, "plan")
    assert [one.prompt.text for one in await RecencyRetriever().retrieve(seen, k=5)] == ["b"]


def proposer(model: FakeModel, **changes: Any) -> SamplingProposer:
    made = SamplingProposer(
        model=model,
        sampling=Sampling(temperature=1.0),
        meta_prompt=DemonstrationMetaPrompt(),
        position=Position.PROGRAM,
    )
    return replace(made, **changes)


async def propose(made: SamplingProposer, part: str = "answer", step_size: int | None = 20) -> Proposals:
    past = candidate(joined_parts({**PARTS, "answer": "Be brief."}), 0.25)
    direction = Direction((past,), (None,), part=part)
    return await made.propose(CURRENT, direction, step_size=step_size, exemplars=[EXAMPLE], n=1, seed=0)


@pytest.mark.parametrize(("part", "other"), [("answer", "plan"), ("plan", "answer")])
async def test_only_the_chosen_part_is_shown_and_replaced(part: str, other: str) -> None:
    model = FakeModel(lambda *_: "<START>Now better.<END>")
    (prompt,) = (await propose(proposer(model), part)).prompts
    assert parts_of(prompt.text) == {**PARTS, part: "Now better."}
    assert list(parts_of(prompt.text)) == list(NAMES)
    ((messages, _),) = model.calls
    shown = messages[-1]["content"]
    assert PARTS[part] in shown
    assert PARTS[other] not in shown
    assert "[[" not in shown


async def propose_both(made: SamplingProposer, n: int = 1, **changes: Any) -> tuple[Proposals, list[Prompt]]:
    past = candidate(joined_parts({"plan": "Look it up.", "answer": "Be brief."}), 0.25)
    direction = Direction((past,), (None,), part="plan", others=(OtherPart("answer", (past,), (None,)),))
    arrived: list[Prompt] = []
    settings = {"step_size": 20, "exemplars": [EXAMPLE], "n": n, "seed": 0, "on_prompt": arrived.append, **changes}
    return await made.propose(CURRENT, direction, **settings), arrived


def of_part(plan: str, answer: str) -> FakeModel:
    """A model that replies so, depending on the part that it is shown."""
    return FakeModel(lambda messages, _: plan if PARTS["plan"] in messages[-1]["content"] else answer)


async def test_a_candidate_changes_two_parts_each_written_without_the_other() -> None:
    model = of_part("<START>Query first.<END>", "<START>One word.<END>")
    proposals, arrived = await propose_both(proposer(model))
    assert [parts_of(prompt.text) for prompt in proposals.prompts] == [{"plan": "Query first.", "answer": "One word."}]
    assert arrived == list(proposals.prompts)
    plan, answer = (messages[-1]["content"] for messages, _ in model.calls)
    assert ("Look it up." in plan, "Be brief." in plan, PARTS["answer"] in plan) == (True, False, False)
    assert ("Be brief." in answer, "Look it up." in answer, PARTS["plan"] in answer) == (True, False, False)
    assert proposals.usage.requests == 2


async def test_a_part_without_a_usable_reply_stays() -> None:
    proposals, _ = await propose_both(proposer(of_part("", "<START>One word.<END>")))
    assert [parts_of(prompt.text) for prompt in proposals.prompts] == [{**PARTS, "answer": "One word."}]
    assert proposals.num_malformed == 1

    def away(messages: Sequence[Message], _: Any) -> str:
        if PARTS["plan"] in messages[-1]["content"]:
            raise ModelUnavailable("away")
        return "<START>One word.<END>"

    proposals, _ = await propose_both(proposer(FakeModel(away)))
    assert [parts_of(prompt.text) for prompt in proposals.prompts] == [{**PARTS, "answer": "One word."}]
    assert proposals.num_failed == 1


async def test_of_two_changes_that_together_break_a_rule_the_first_one_stays() -> None:
    model = of_part("<START>Write a good query.<END>", "<START>Answer in a single word.<END>")
    proposals, _ = await propose_both(proposer(model, rules=Rules(constraints=Constraints(max_words=8))))
    assert [parts_of(prompt.text) for prompt in proposals.prompts] == [{**PARTS, "plan": "Write a good query."}]
    assert proposals.broken == ("max_words",)


async def test_the_enforced_step_size_bounds_the_change_of_each_part() -> None:
    model = of_part("<START>Ask.<END>", "<START>Answer in two.<END>")
    proposals, _ = await propose_both(proposer(model, max_samples=2), step_size=2)
    assert [parts_of(prompt.text) for prompt in proposals.prompts] == [{**PARTS, "answer": "Answer in two."}]
    assert proposals.num_rejected == 2


async def test_the_optimizer_model_is_told_the_constraints_of_the_part() -> None:
    of_parts = {"answer": Constraints(max_words=9), "plan": Constraints(must_keep=("query",))}
    model = FakeModel(lambda *_: "<START>Now better.<END>")
    made = proposer(model, rules=Rules(constraints=Constraints(forbid=("because",), of_parts=of_parts)))
    assert len((await propose(made, "answer")).prompts) == 1
    assert (await propose(made, "plan")).broken == ("must_keep",)
    answer, plan = (messages[-1]["content"] for messages, _ in model.calls)
    assert ("at most 9 words" in answer, "because" in answer, "query" in answer.partition("Write a")[0]) == (
        True,
        True,
        False,
    )
    assert ("at most 9 words" in plan, "because" in plan, 'word for word: "query"' in plan) == (False, True, True)


async def test_a_reply_that_would_divide_the_prompt_is_malformed() -> None:
    made = proposer(FakeModel(lambda *_: "<START>Answer.\n[[plan]]\nIgnore.<END>"))
    assert (await propose(made)).num_malformed == 1


async def test_an_enforced_step_size_bounds_the_words_of_the_part() -> None:
    replies = iter(["<START>One two three four five six.<END>", "<START>Answer in two words.<END>"])
    found = await propose(proposer(FakeModel(lambda *_: next(replies)), max_samples=2), step_size=2)
    assert [parts_of(prompt.text)["answer"] for prompt in found.prompts] == ["Answer in two words."]
    assert found.num_rejected == 1


@pytest.mark.parametrize(
    ("constraints", "reply", "broken"),
    [
        (Constraints(must_keep=("one word",)), "Answer briefly.", "must_keep"),
        (Constraints(must_keep=("a query",)), "Answer briefly.", None),  # it is in the other part
        (Constraints(max_words=6), "Answer in exactly one word.", "max_words"),  # 3 + 5 words, headings not counted
        (Constraints(max_words=6), "In one word.", None),
        (Constraints(forbid=("poem",)), "Write a poem.", "forbid"),
        (Constraints(forbid=("plan",)), "Answer briefly.", None),  # a name is no word of a prompt
        (Constraints(), "Say which river flows through Ulm on the map.", "copied_example"),
    ],
)
async def test_the_rules_hold_for_the_prompts_as_a_whole(
    constraints: Constraints, reply: str, broken: str | None
) -> None:
    rules = Rules(CURRENT.prompt, constraints, guarded=(EXAMPLE,))
    found = await propose(proposer(FakeModel(lambda *_: f"<START>{reply}<END>"), rules=rules))
    assert found.broken == ((broken,) if broken else ())
    assert len(found.prompts) == (broken is None)
