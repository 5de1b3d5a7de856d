from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest

from benchmarks.power.__main__ import NAMES
from benchmarks.power.joint import ALONE, METHODS_OF_BOTH, Pipeline, true_score
from benchmarks.power.peers.models import BudgetSpent, TaskModel, score
from benchmarks.power.results import Cell, Found, Job, Result, draw, read_results, table
from benchmarks.power.searches import METHODS, search
from benchmarks.power.structures import STRUCTURES, StructuredTask
from benchmarks.simulated.landscape import weights

PROMPT = "Classify the text. Answer with exactly one word."


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_mean_of_many_answers_is_the_true_score(name: str) -> None:
    tasks = [StructuredTask(STRUCTURES[name], seed) for seed in range(0, 800, 4)]
    assert fmean(fmean(task.answers(PROMPT)) for task in tasks) == pytest.approx(tasks[0].true_score(PROMPT), abs=0.02)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["by label", "30 examples"])
def test_a_search_repeats_itself_and_stays_within_its_budget(method: str, name: str) -> None:
    first = search(method, STRUCTURES[name], 350, 1)
    assert first == search(method, STRUCTURES[name], 350, 1)
    assert 0 < first.calls <= 350


@pytest.mark.parametrize("name", STRUCTURES)
def test_other_optimizers_see_the_same_scores(name: str) -> None:
    task = StructuredTask(STRUCTURES[name], 2)
    model = TaskModel(task, 1000)
    shown = [score(model.reply(PROMPT, text), target) for text, target in model.examples]
    assert shown == pytest.approx(task.answers(PROMPT))
    assert model.calls == task.structure.num_val


def test_only_prompts_that_are_scored_within_the_budget_count() -> None:
    model = TaskModel(StructuredTask(STRUCTURES["30 examples"], 0), 65)
    assert model.best_within_budget([(model.initial, 0.1)]).prompt == model.initial
    prompts = [model.initial, PROMPT, f"{PROMPT} please"]
    for prompt in prompts:
        for text, _ in model.examples:
            model.reply(prompt, text)
    assert model.best_within_budget(zip(prompts, (0.1, 0.5, 0.9), strict=True)) == Found(PROMPT, 65)
    with pytest.raises(BudgetSpent):
        model.require(1)


def test_neither_prompt_of_the_pipeline_alone_exceeds_what_the_other_stage_allows() -> None:
    for seed in range(4):
        pipeline = Pipeline(seed)
        assert pipeline.true_score(pipeline.initial) == pytest.approx(ALONE**2)
        for name in pipeline.initial:
            words = " ".join(word for word, effect in weights(pipeline.stage(name).domain).items() if effect > 0)
            assert ALONE * 0.95 < pipeline.true_score({**pipeline.initial, name: words}) <= ALONE
            assert pipeline.stage(name).domain != pipeline.stage("plan" if name == "answer" else "answer").domain


@pytest.mark.parametrize("method", METHODS_OF_BOTH)
def test_two_prompts_get_better_within_the_budget(method: str) -> None:
    found = true_score(method, 600, 1)
    assert found == true_score(method, 600, 1)
    assert found > ALONE**2


def test_results_are_kept_in_a_file(tmp_path: Path) -> None:
    result = Result(Job("paper", "additive", 500, 3), 0.25, 400)
    path = tmp_path / "results.jsonl"
    assert read_results(path) == read_results(None) == {}
    path.write_text(result.to_json() + "\n", encoding="utf-8")
    assert read_results(path) == {result.job: result}


def test_table_and_figure(tmp_path: Path) -> None:
    results = [
        Result(Job(method, "additive", 500, seed), score + seed / 10, 400)
        for method, score in (("efficient", 0.6), ("paper", 0.5))
        for seed in (0, 1, 2)
    ]
    cell = Cell.of(results, "additive", "efficient", 500)
    assert cell == (pytest.approx(0.7), pytest.approx(0.1 / 3**0.5))
    names = {method: NAMES[method] for method in ("efficient", "paper")}
    assert table(results, names, ["additive"], [500, 1000]).splitlines()[2:] == [
        "| additive | `efficient` | **0.700** ± 0.058 | – |",
        "|  | `paper` | 0.600 ± 0.058 | – |",
    ]
    path = tmp_path / "power.svg"
    draw(path, results, names, ["additive"], [500, 1000])
    assert "additive" in path.read_text(encoding="utf-8")
