"""The first step's candidates: prompts that are not made from the initial prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpo.data.example import Example
from gpo.evaluation.answer_format import Position
from gpo.models.protocol import Message, Usage
from gpo.prompt import Prompt
from gpo.strategies.meta_prompt import Brief, placed, rule_sentences
from gpo.strategies.proposer import OnPrompt, Proposals, ignore_prompt
from gpo.strategies.sections import END, START, example_lines, joined, neutral
from gpo.trajectory import Candidate, Direction

_SHOWN = (
    (
        "Find out whether an email is about sport or politics.",
        Example("The senate votes on the new budget tomorrow.", ("politics",)),
        "What is the topic of the email, sport or politics? Name the topic of the email.",
    ),
    (
        "Add the prices on a receipt.",
        Example("Bread 3, milk 2, apples 4", ("9",)),
        "What is the sum of all prices in the list? Write the sum as a number.",
    ),
    (
        "Correct the spelling of a word.",
        Example("recieve", ("receive",)),
        "What is the correct spelling of the word? Write the word.",
    ),
)
"""Goals of other tasks, each with an example and a prompt for it."""


@dataclass(frozen=True, slots=True)
class GivenPrompts:
    """A ``Proposer`` of prompts that are known already; it calls no model."""

    prompts: tuple[Prompt, ...]

    async def propose(
        self,
        current: Candidate,
        direction: Direction,
        *,
        step_size: int | None,
        exemplars: Sequence[Example],
        n: int,
        seed: int,
        on_prompt: OnPrompt = ignore_prompt,
    ) -> Proposals:
        for prompt in self.prompts:
            on_prompt(prompt)
        return Proposals(self.prompts, num_malformed=0, usage=Usage())


@dataclass(frozen=True, slots=True)
class GoalMetaPrompt:
    """Asks for a prompt from the goal of the task and its rules, without any earlier prompt.

    Prompts for other tasks are shown as chat turns, so that a small model continues the pattern.

    Attributes:
        is_compact: leave out the explanation and the examples of the task, which a small model would copy.
    """

    is_compact: bool = False

    @property
    def stop(self) -> tuple[str, ...]:
        return (END, "\n") if self.is_compact else (END,)

    def messages(self, brief: Brief) -> list[Message]:
        turns: list[Message] = []
        for goal, example, prompt in _SHOWN:
            explanation = "" if turns or self.is_compact else _explanation(brief.position)
            turns.append({"role": "user", "content": joined(explanation, self._request(goal, [example]))})
            turns.append({"role": "assistant", "content": f"{START}{prompt}{END}"})
        return [
            *turns,
            {"role": "user", "content": self._request(brief.goal or "", brief.exemplars, brief.rules.sentences)},
        ]

    def _request(self, goal: str, exemplars: Sequence[Example], rules: Sequence[str] = ()) -> str:
        shown = () if self.is_compact else exemplars
        request = f"Write an instruction for this task: {neutral(goal)}"
        return joined(request, *map(example_lines, shown), rule_sentences(rules).strip())


def _explanation(position: Position) -> str:
    return (
        "You write instructions for a language model, which receives an instruction together with one input at a time "
        f"and has to answer correctly; the instruction stands {placed(position)}. Say what the model has to do and how "
        "the answer has to look. An instruction must work for every input of the task, so do not put a particular "
        f"input or answer into it. Write it between {START} and {END}, and nothing else."
    )
