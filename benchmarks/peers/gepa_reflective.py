"""GEPA's reflective mutation with its default adapter, and one thread for each call the endpoint serves.

GEPA tries one candidate at a time, on three examples first. Its budget is as many scored examples as ours.
"""

from __future__ import annotations

from benchmarks.peers.setting import CANDIDATES, KEY, Setting, read_setting, report

_TIMEOUT_S = 300.0
"""A candidate rejected after three examples costs little, so the budget may last for many more proposals than ours."""


def optimize(setting: Setting) -> None:
    """Optimize and report the scores."""
    import gepa  # type: ignore[import-not-found]
    from gepa.adapters.default_adapter.default_adapter import DefaultAdapter  # type: ignore[import-not-found]
    from gepa.lm import LM  # type: ignore[import-not-found]
    from gepa.utils.stop_condition import TimeoutStopCondition  # type: ignore[import-not-found]

    endpoint = {"api_base": setting.base_url, "api_key": KEY}
    adapter = DefaultAdapter(
        model="openai/task-model",
        max_litellm_workers=setting.concurrency,
        litellm_batch_completion_kwargs={**endpoint, "temperature": 0.0, "max_tokens": 64},
    )

    def rows(pairs: object) -> list[dict[str, object]]:
        assert isinstance(pairs, list)  # noqa: S101
        return [{"input": text, "additional_context": {}, "answer": label} for text, label in pairs]

    result = gepa.optimize(
        seed_candidate={"prompt": setting.prompt},
        trainset=rows(setting.val),
        valset=rows(setting.val),
        adapter=adapter,
        reflection_lm=LM("openai/opt-model", temperature=1.0, max_tokens=512, **endpoint),
        max_metric_calls=len(setting.val) * (1 + CANDIDATES * setting.steps),
        stop_callbacks=TimeoutStopCondition(_TIMEOUT_S),
    )
    test = adapter.evaluate(rows(setting.test), result.best_candidate).scores
    report(max(result.val_aggregate_scores), sum(test) / len(test))


if __name__ == "__main__":
    optimize(read_setting())
