"""Section ``answer`` of a task: how answers are asked for and judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from cluster.config.section import Section
from gpo.datasets.benchmarks import answer_kind
from gpo.errors import ConfigError
from gpo.examples import Example
from gpo.scoring import BooleanScorer, ChoiceScorer, ExactScorer, LabelScorer, NumberScorer, RougeScorer, Scorer


class AnswerConfig(Section):
    """How answers are asked for and judged."""

    kind: Literal["choice", "boolean", "number", "exact", "label", "text"] | None = None
    """``choice``: an option such as (B). ``boolean``: yes or no, true or false. ``number``. ``exact``: the target
    itself. ``label``: names the target and no other label. ``text``: ROUGE-L. Left out: read off the targets."""
    rounds: Literal[1, 2] | None = None
    """2 asks once more for the bare answer. Left out: 1 for files, 2 for benchmarks."""
    labels: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    """The labels of kind ``label``. Left out: every target in the data."""

    @model_validator(mode="after")
    def _labels_are_used(self) -> Self:
        if self.labels is not None and self.kind != "label":
            raise PydanticCustomError(
                "labels", "goes with kind: label only; set that kind, or leave it out", {"at": "labels"}
            )
        return self

    def scorer(self, examples: list[Example], where: str) -> Scorer:
        """The scorer for these examples.

        Args:
            where: this section's place, for errors.

        Raises:
            ConfigError: it would find many of the targets themselves wrong.
        """
        kind = self.kind or answer_kind(examples)
        scorer = self._label_scorer(examples) if kind == "label" else _SCORERS[kind]()
        wrong = [example.target for example in examples if scorer.score(example.target, example) < 1]
        # A few faulty targets are part of some published benchmarks.
        if len(wrong) > max(1, _FAULTY * len(examples)):
            shown = wrong[0] if len(wrong[0]) <= 40 else f"{wrong[0][:40]}…"
            raise ConfigError(
                f"{where}.{'labels' if self.labels else 'kind'}",
                f"{kind!r} would judge {len(wrong)} of {len(examples)} targets wrong, such as {shown!r}",
                "choose the kind or the labels that fit the data, or correct those targets",
            )
        return scorer

    def _label_scorer(self, examples: list[Example]) -> LabelScorer:
        found = {target for example in examples for target in example.targets}
        return LabelScorer(self.labels or tuple(sorted(found)))


_SCORERS: dict[str, Callable[[], Scorer]] = {
    "choice": ChoiceScorer,
    "boolean": BooleanScorer,
    "number": NumberScorer,
    "exact": ExactScorer,
    "text": RougeScorer,
}
_FAULTY = 0.05
"""Share of targets that may be faulty."""
