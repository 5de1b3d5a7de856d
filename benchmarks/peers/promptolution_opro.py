"""Promptolution's OPRO, with as many candidates a step as ours."""

from __future__ import annotations

from benchmarks.peers.promptolution_task import Parts
from benchmarks.peers.setting import CANDIDATES, Setting, read_setting


def optimize(setting: Setting) -> None:
    """Optimize, and report."""
    from promptolution.optimizers import OPRO  # type: ignore[import-not-found]

    parts = Parts(setting)
    optimizer = OPRO(
        predictor=parts.predictor,
        task=parts.task,
        meta_llm=parts.meta_llm,
        initial_prompts=[setting.prompt],
        num_instructions_per_step=CANDIDATES,
    )
    parts.finish(optimizer.optimize(setting.steps)[:1], optimizer.scores[0])


if __name__ == "__main__":
    optimize(read_setting())
