"""Promptolution's OPRO or EvoPrompt (genetic), with as many candidates a step as ours."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.setting import CANDIDATES, KEY, Setting, read_setting, report

_WORDS = ("please", "now", "here", "then", "also", "kindly", "briefly")


def optimize(setting: Setting) -> None:
    """Optimize ``val`` and report the best prompt's scores."""
    from promptolution.llms import APILLM  # type: ignore[import-not-found]
    from promptolution.optimizers import OPRO, EvoPromptGA  # type: ignore[import-not-found]
    from promptolution.predictors import FirstOccurrencePredictor  # type: ignore[import-not-found]

    def model(name: str, temperature: float, max_tokens: int) -> Any:
        return APILLM(
            api_url=setting.base_url,
            model_id=name,
            api_key=KEY,
            max_concurrent_calls=setting.concurrency,
            max_tokens=max_tokens,
            call_kwargs={"temperature": temperature},
        )

    predictor = FirstOccurrencePredictor(model("task-model", 0.0, 64), list(setting.labels))
    parts = {"predictor": predictor, "task": _task(setting, "val"), "meta_llm": model("opt-model", 1.0, 512)}
    if setting.optimizer == "evoprompt":
        # EvoPrompt needs an initial population.
        variants = [f"{setting.prompt} {word}" for word in _WORDS[: CANDIDATES - 1]]
        optimizer = EvoPromptGA(initial_prompts=[setting.prompt, *variants], **parts)
    else:
        optimizer = OPRO(initial_prompts=[setting.prompt], num_instructions_per_step=CANDIDATES, **parts)
    best = optimizer.optimize(setting.steps)[:1]
    test = _task(setting, "test").evaluate(best, predictor).agg_scores
    report(float(optimizer.scores[0]), float(test[0]))


def _task(setting: Setting, split: str) -> Any:
    import pandas as pd  # type: ignore[import-untyped]
    from promptolution.tasks import ClassificationTask  # type: ignore[import-not-found]

    frame = pd.DataFrame(getattr(setting, split), columns=["x", "y"])
    return ClassificationTask(frame, task_description=setting.prompt, eval_strategy="full")


if __name__ == "__main__":
    optimize(read_setting())
