"""The default meta-prompt: solved requests for other tasks, and then the request for this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from gpo.models.protocol import Message
from gpo.strategies.meta_prompt import Brief, Kind, rule_sentences
from gpo.strategies.sections import END, START, joined, neutral, unexplained, without_prompt_tags
from gpo.trajectory import Candidate, Failure


@dataclass(frozen=True, slots=True)
class _Request:
    """What a request of ``DemonstrationMetaPrompt`` consists of; scores in percent."""

    examples: tuple[tuple[str, str], ...]
    current: tuple[str, float]
    hint: str
    step_size: int | None = None
    earlier: tuple[tuple[str, float, str | None], ...] = ()
    goal: str = ""
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()

    def text(self, *, show_scores: bool) -> str:
        """The request, with what changes least first, so that servers can reuse what they have read."""
        bound = "" if self.step_size is None else f" Change at most {self.step_size} words."
        return joined(
            _headed("Goal", [_clean(self.goal)] if self.goal else []),
            _headed("Examples", [_example(*pair) for pair in self.examples]),
            _headed("Earlier prompts", self._earlier(show_scores)),
            _headed("Notes", [_clean(note) for note in self.notes]),
            _headed("Prompt to improve", [_tagged(*self.current, show_scores)]),
            _headed("Wrong answers", [_wrong(failure) for failure in self.failures]),
            f"Write a better prompt, unlike those above.{bound} {rule_sentences(self.rules)}{self.hint}".strip(),
        )

    def _earlier(self, show_scores: bool) -> list[str]:
        return [
            _tagged(prompt, percent, show_scores)
            + (f"\n<reflection>{_clean(reflection)}</reflection>" if reflection else "")
            for prompt, percent, reflection in self.earlier
        ]


_HINTS: Mapping[Kind, tuple[str, ...]] = {
    "generation": (
        "Ask for the one thing that is wanted, and name it again at the end.",
        "Say exactly what to find in the input, and what to write.",
        "Name the possible answers, or the form of the answer.",
        "Ask the same in other, plainer words.",
    ),
    "editing": ("Change only the words that keep it from working better.",),
    "paraphrase": ("Say the same in other words.",),
}
"""What to try: each request of a step gets the next one, so that the replies differ."""

_SPORT = (("The keeper saved a penalty.", "sport"), ("The minister resigned.", "politics"))
_SUMS = (("7 + 5", "12"), ("3 + 6", "9"))
_SPELLING = (("She solved the ecuation.", "equation"), ("What a beatiful day.", "beautiful"))
_DEMONSTRATIONS: Mapping[Kind, tuple[tuple[_Request, str], ...]] = {
    "generation": (
        (
            _Request(_SPORT, ("Is this about sport or politics?", 31), _HINTS["generation"][0], 20),
            "What is the topic of the text, sport or politics? Name the topic of the text.",
        ),
        (
            _Request(_SUMS, ("How much is that?", 50), _HINTS["generation"][2], 9, (("How much?", 25, None),)),
            "What is the result of the calculation? Write the number.",
        ),
        (
            _Request(
                _SPELLING,
                ("Is there a mistake in the spelling of some word here?", 20),
                _HINTS["generation"][1],
                30,
                (("Spelling?", 4, None), ("Can you spell this right?", 12, None)),
            ),
            "Find the misspelled word. Write its correct spelling.",
        ),
    ),
    "editing": (
        (
            _Request(_SPORT, ("Is this about sport or politics?", 31), _HINTS["editing"][0], 6),
            "Is this text about sport or politics? Name the topic.",
        ),
        (
            _Request(_SUMS, ("How much is that?", 50), _HINTS["editing"][0], 3, (("How much?", 25, None),)),
            "How much is that? Write the number.",
        ),
    ),
    "paraphrase": (
        (
            _Request(_SPORT, ("Is this about sport or politics?", 31), _HINTS["paraphrase"][0], 20),
            "Does the text deal with sport, or with politics?",
        ),
        (
            _Request(_SUMS, ("How much is that?", 50), _HINTS["paraphrase"][0], 9, (("How much?", 25, None),)),
            "What does that come to?",
        ),
    ),
}
"""Solved requests, each for another task."""


@dataclass(frozen=True, slots=True)
class DemonstrationMetaPrompt:
    """Solved requests for other tasks as chat turns, and then the request for this task in the same form.

    For middling and capable models. A model of one or two billion parameters answers a long instruction by repeating
    its lines, scores included; from solved requests it learns the form of the reply. Prompts stand in tags with their
    scores as attributes, which such a model does not copy. The requests of a step differ in their last sentence, so
    that their replies differ.

    Attributes:
        show_scores: whether prompts are shown with their scores, worst first.
    """

    kind: Kind = "generation"
    show_scores: bool = True

    @property
    def stop(self) -> tuple[str, ...]:
        return (END,)

    def messages(self, brief: Brief) -> list[Message]:
        turns: list[Message] = []
        for request, reply in _DEMONSTRATIONS[self.kind]:
            turns.append({"role": "user", "content": request.text(show_scores=self.show_scores)})
            turns.append({"role": "assistant", "content": f"{START}{reply}{END}"})
        turns.append({"role": "user", "content": self._request(brief).text(show_scores=self.show_scores)})
        first = turns[0]["content"]
        return [{"role": "user", "content": f"{self._introduction()}\n\n{first}"}, *turns[1:]]

    def _introduction(self) -> str:
        scores = " with the accuracy that they led to, in percent" if self.show_scores else ""
        return (
            "You improve prompts. A language model gets a prompt together with one input at a time and has to give the "
            f"right answer. You see examples of the task, prompts{scores}, and what to try. Write one new prompt "
            f"between {START} and {END}. It must fit every input of the task, not only the examples."
        )

    def _request(self, brief: Brief) -> _Request:
        direction, hints = brief.direction, _HINTS[self.kind]
        past = list(zip_longest(direction.neighbours, direction.neighbour_reflections))
        if self.show_scores:
            past.sort(key=lambda entry: entry[0].score.mean)
        return _Request(
            examples=tuple((example.input, example.target) for example in brief.exemplars),
            current=_scored(brief.current),
            hint=hints[brief.sample % len(hints)],
            step_size=brief.step_size,
            earlier=tuple((*_scored(candidate), reflection) for candidate, reflection in past),
            goal=brief.goal or "",
            failures=unexplained(direction),
            notes=tuple(text for text in (direction.summary, direction.reflection) if text),
            rules=brief.rules.sentences,
        )


def _scored(candidate: Candidate) -> tuple[str, float]:
    return candidate.prompt.text, 100 * candidate.score.mean


def _headed(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"{title}:", *lines]) if lines else ""


def _clean(text: str) -> str:
    return without_prompt_tags(neutral(text))


def _example(given: str, answer: str) -> str:
    return f"<example><input>{_clean(given)}</input><answer>{_clean(answer)}</answer></example>"


def _tagged(prompt: str, percent: float, show_scores: bool) -> str:
    score = f' accuracy="{percent:.1f}"'.replace('.0"', '"') if show_scores else ""
    return f"<prompt{score}>{_clean(prompt)}</prompt>"


def _wrong(failure: Failure) -> str:
    reason = f"<reason>{_clean(failure.reason)}</reason>" if failure.reason else ""
    return (
        f"<wrong><input>{_clean(failure.input)}</input><right>{_clean(failure.target)}</right>"
        f"<answered>{_clean(failure.answer)}</answered>{reason}</wrong>"
    )
