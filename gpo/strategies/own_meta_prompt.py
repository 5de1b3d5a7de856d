"""Meta-prompts with a user's own text."""

from __future__ import annotations

from dataclasses import dataclass

from gpo.data.constraints import Constraints
from gpo.data.example import Example
from gpo.data.template import Template
from gpo.errors import ConfigError
from gpo.evaluation.answer_format import Position
from gpo.models.protocol import Message
from gpo.prompt import Prompt
from gpo.score import Score
from gpo.strategies.meta_prompt import Brief, MetaPrompt
from gpo.strategies.rules import Rules
from gpo.strategies.sections import END, START, neutral, ordered
from gpo.trajectory import Candidate, Direction, Failure


@dataclass(frozen=True, slots=True)
class ExtendedMetaPrompt:
    """Another meta-prompt, with a user's own sentences added to its last message."""

    meta_prompt: MetaPrompt
    extra: str

    @property
    def stop(self) -> tuple[str, ...]:
        return self.meta_prompt.stop

    def messages(self, brief: Brief) -> list[Message]:
        *before, last = self.meta_prompt.messages(brief)
        return [*before, {"role": "user", "content": f"{self.extra}\n\n{last['content']}"}]


TEMPLATE_VARIABLES = (
    "prompt", "score", "examples", "earlier", "failures", "goal", "rules", "step_size", "reflection", "summary",
)  # fmt: skip
"""What a template of ``TemplateMetaPrompt`` can use."""


@dataclass(frozen=True, slots=True)
class TemplateMetaPrompt:
    """A user's own meta-prompt: a Jinja template, which becomes one message.

    ``prompt`` is the current prompt and ``score`` its score in percent. ``examples`` have ``input`` and ``target``,
    ``earlier`` have ``prompt`` and ``score``, ``failures`` have ``input``, ``target``, ``answer`` and ``reason``.
    ``rules`` is a list of sentences. ``goal``, ``reflection`` and ``summary`` are texts, which may be empty.
    ``step_size`` is a number, or empty without a bound.
    """

    template: Template

    @property
    def stop(self) -> tuple[str, ...]:
        return ()

    @property
    def shows_rules(self) -> bool:
        """Whether the template shows the rules."""
        return "rules" in self.template.variables

    def check(self) -> None:
        """Check the template before the run.

        Raises:
            ConfigError: it is not valid, lacks a part that every meta-prompt needs, or uses an unknown variable.
        """
        used, where = self.template.variables, self.template.field
        if unknown := sorted(used - {*TEMPLATE_VARIABLES}):
            raise ConfigError(where, f"uses {unknown[0]!r}, which is unknown", f"use {', '.join(TEMPLATE_VARIABLES)}")
        if "prompt" not in used:
            raise ConfigError(where, "does not show the prompt", "write {{ prompt }} where it belongs")
        if START not in self.template.source or END not in self.template.source:
            raise ConfigError(
                where, f"does not ask for the new prompt between {START} and {END}", "add a sentence that does"
            )
        current, one = Candidate(Prompt("…"), Score((0.0,))), Example("…", ("…",))
        full = Direction((current,), (None,), "…", "…", (Failure("…", "…", "…", "…"),))
        # Early steps have no earlier prompts; a search without a bound has no step size.
        for brief in (
            Brief(
                current,
                full,
                1,
                (one,),
                Position.QUESTION_END,
                goal="…",
                rules=Rules(constraints=Constraints(max_words=1)),
            ),
            Brief(current, Direction(), None, (), Position.QUESTION_END),
        ):
            try:
                self.messages(brief)
            except ConfigError as error:
                raise ConfigError(
                    where, error.problem.partition("; the columns are")[0], "correct it; each variable may be empty"
                ) from None

    def messages(self, brief: Brief) -> list[Message]:
        direction = brief.direction
        past = ordered(direction.neighbours, by_score=True)
        values = {
            "prompt": neutral(brief.current.prompt.text),
            "score": _percent(brief.current),
            "examples": [{"input": neutral(one.input), "target": neutral(one.target)} for one in brief.exemplars],
            "earlier": [{"prompt": neutral(one.prompt.text), "score": _percent(one)} for one in past],
            "failures": [
                {name: neutral(getattr(one, name)) for name in ("input", "target", "answer", "reason")}
                for one in direction.failures
            ],
            "goal": brief.goal or "",
            "rules": list(brief.rules.sentences),
            "step_size": "" if brief.step_size is None else brief.step_size,
            "reflection": neutral(direction.reflection or ""),
            "summary": neutral(direction.summary or ""),
        }
        return [{"role": "user", "content": self.template.rendered(values, self.template.field)}]


def _percent(candidate: Candidate) -> str:
    return f"{100 * candidate.score.mean:.1f}"
