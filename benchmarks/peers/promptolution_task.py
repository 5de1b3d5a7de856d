"""What promptolution's optimizers share: its models, its task and its predictor."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.setting import KEY, Setting, report


class Parts:
    """The parts of a search on ``val``."""

    def __init__(self, setting: Setting) -> None:
        from promptolution.llms import APILLM  # type: ignore[import-not-found]
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

        self.setting = setting
        self.meta_llm = model("opt-model", 1.0, 512)
        self.predictor = FirstOccurrencePredictor(model("task-model", 0.0, 64), list(setting.labels))
        self.task = self._task("val")

    def finish(self, prompts: Any, val: float) -> None:
        """Report the best prompt's scores.

        Args:
            prompts: that one alone.
            val: what the search has it scored with.
        """
        test = self._task("test").evaluate(prompts, self.predictor).agg_scores
        report(float(val), float(test[0]))

    def _task(self, split: str) -> Any:
        import pandas as pd  # type: ignore[import-untyped]
        from promptolution.tasks import ClassificationTask  # type: ignore[import-not-found]

        rows = getattr(self.setting, split)
        frame = pd.DataFrame(rows, columns=["x", "y"])
        return ClassificationTask(frame, task_description=self.setting.prompt, eval_strategy="full")
