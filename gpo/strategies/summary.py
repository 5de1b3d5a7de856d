"""Update direction: a running summary of the search so far.

The paper's trajectory summarization, the counterpart of momentum: every step updates one text, in which older lessons
fade unless newer ones confirm them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gpo.models.protocol import ChatModel, Sampling
from gpo.strategies.reflection import Reflection, write_reflection
from gpo.strategies.sections import SCALE, joined, neutral, ordered, shown, titled
from gpo.trajectory import Step, Trajectory


class Summarizer(Protocol):
    """Writes the summary that is passed on from step to step."""

    async def summarize(self, trajectory: Trajectory, *, seed: int) -> Reflection:
        """Summarize all steps so far, for the next step.

        Raises:
            ModelError: the optimizer model could not be called.
        """
        ...


@dataclass(frozen=True, slots=True)
class NoSummary:
    """No summary and no cost. GPO's own choice."""

    async def summarize(self, trajectory: Trajectory, *, seed: int) -> Reflection:
        return Reflection()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningSummary:
    """Lets the optimizer model update the last summary with the last step.

    Costs one call of the optimizer model in every step except the first. If a reply contains no summary, the previous
    one is kept.

    Attributes:
        show_scores: whether prompts are shown with their scores; otherwise only the chosen prompt is marked.
    """

    model: ChatModel
    sampling: Sampling
    show_scores: bool = True

    async def summarize(self, trajectory: Trajectory, *, seed: int) -> Reflection:
        if not trajectory.steps:
            return Reflection()
        before = trajectory.steps[-2].successor if len(trajectory.steps) > 1 else trajectory.initial
        last = trajectory.steps[-1]
        sections = [
            "You keep the notes of a search for a better prompt. A language model receives a prompt together with one "
            f"input at a time and has to answer correctly.{f' {SCALE}' if self.show_scores else ''}",
            titled("Notes so far", neutral(last.direction.summary or "")),
            titled("Prompt before the last step", shown(before, score=self.show_scores)),
            titled("Reflection on that prompt", neutral(last.direction.reflection or "")),
            titled(f"Prompts that the last step tried{', worst first' if self.show_scores else ''}", self._tried(last)),
            titled("Prompt after the last step", "" if self.show_scores else shown(last.successor, score=False)),
            titled(
                "What to note",
                "Write the notes anew, in at most five sentences: what makes prompts for this task better, and what "
                "makes them worse. Keep of the old notes what still holds, correct what the last step has shown to "
                "be wrong, and do not write a prompt.",
            ),
        ]
        summary = await write_reflection(self.model, self.sampling, seed, joined(*sections))
        return Reflection(summary.text or last.direction.summary, summary.spending)

    def _tried(self, step: Step) -> str:
        candidates = ordered(step.candidates, by_score=self.show_scores)
        return "\n\n".join(shown(candidate, score=self.show_scores) for candidate in candidates)
