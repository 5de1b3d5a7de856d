"""GEPA: reflective mutation with its own adapter, whose threads are as many as the endpoint serves.

It tries one candidate at a time, on three examples first; its budget is as many scored examples as ours.
"""

from __future__ import annotations

from benchmarks.peers.setting import CANDIDATES, KEY, Setting, read_setting, report

_MOST_S = 300.0
"""Its budget may last for many more proposals than ours: what it refuses after three examples costs it little."""


def optimize(setting: Setting) -> None:
    """Optimize, and report."""
    import gepa  # type: ignore[import-not-found]
    from gepa.adapters.default_adapter.default_adapter import DefaultAdapter  # type: ignore[import-not-found]
    from gepa.lm import LM  # type: ignore[import-not-found]
    from gepa.utils.stop_condition import TimeoutStopCondition  # type: ignore[import-not-found]

    place = {"api_base": setting.base_url, "api_key": KEY}
    adapter = DefaultAdapter(
        model="openai/task-model",
        max_litellm_workers=setting.concurrency,
        litellm_batch_completion_kwargs={**place, "temperature": 0.0, "max_tokens": 64},
    )

    def rows(pairs: object) -> list[dict[str, object]]:
        assert isinstance(pairs, list)  # noqa: S101
        return [{"input": text, "additional_context": {}, "answer": label} for text, label in pairs]

    result = gepa.optimize(
        seed_candidate={"prompt": setting.prompt},
        trainset=rows(setting.val),
        valset=rows(setting.val),
        adapter=adapter,
        reflection_lm=LM("openai/opt-model", temperature=1.0, max_tokens=512, **place),
        max_metric_calls=len(setting.val) * (1 + CANDIDATES * setting.steps),
        stop_callbacks=TimeoutStopCondition(_MOST_S),
    )
    test = adapter.evaluate(rows(setting.test), result.best_candidate).scores
    report(max(result.val_aggregate_scores), sum(test) / len(test))


if __name__ == "__main__":
    optimize(read_setting())
