"""Promptolution's EvoPrompt (genetic), with a population as large as our number of candidates."""

from __future__ import annotations

from benchmarks.peers.promptolution_task import Parts
from benchmarks.peers.setting import CANDIDATES, Setting, read_setting

_WORDS = ("please", "now", "here", "then", "also", "kindly", "briefly")


def optimize(setting: Setting) -> None:
    """Optimize, and report."""
    from promptolution.optimizers import EvoPromptGA  # type: ignore[import-not-found]

    parts = Parts(setting)
    optimizer = EvoPromptGA(
        predictor=parts.predictor,
        task=parts.task,
        meta_llm=parts.meta_llm,
        # It wants a population to begin with.
        initial_prompts=[setting.prompt, *(f"{setting.prompt} {word}" for word in _WORDS[: CANDIDATES - 1])],
    )
    parts.finish(optimizer.optimize(setting.steps)[:1], optimizer.scores[0])


if __name__ == "__main__":
    optimize(read_setting())
