"""DSPy's COPRO with as many candidates a step as ours, and one evaluation thread for each call the endpoint serves."""

from __future__ import annotations

from benchmarks.peers.setting import CANDIDATES, KEY, Setting, read_setting, report


def optimize(setting: Setting) -> None:
    """Optimize and report the scores."""
    import dspy  # type: ignore[import-not-found]
    from dspy.teleprompt import COPRO  # type: ignore[import-not-found]

    endpoint = {"api_base": setting.base_url, "api_key": KEY, "cache": False}
    task_model = dspy.LM("openai/task-model", temperature=0.0, max_tokens=64, **endpoint)
    dspy.configure(lm=task_model)

    def examples(pairs: object) -> list[object]:
        assert isinstance(pairs, list)  # noqa: S101
        return [dspy.Example(text=text, label=label).with_inputs("text") for text, label in pairs]

    def right(example: object, prediction: object, _: object = None) -> bool:
        return str(getattr(example, "label", "")) == str(getattr(prediction, "label", "")).strip().lower()

    program = dspy.Predict(dspy.Signature("text -> label", setting.prompt))
    scoring = {"num_threads": setting.concurrency, "display_progress": False, "display_table": 0}
    copro = COPRO(
        prompt_model=dspy.LM("openai/opt-model", temperature=1.0, max_tokens=512, **endpoint),
        metric=right,
        breadth=CANDIDATES,
        depth=setting.steps,
        init_temperature=1.0,
    )
    best = copro.compile(program, trainset=examples(setting.val), eval_kwargs=scoring)
    val = max(candidate["score"] for candidate in best.candidate_programs)
    test = dspy.Evaluate(devset=examples(setting.test), metric=right, **scoring)(best).score
    report(val / 100, test / 100)


if __name__ == "__main__":
    optimize(read_setting())
