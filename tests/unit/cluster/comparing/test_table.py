from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from actors.folder import Folder
from actors.search import SearchKey
from cluster.comparing.comparison import Comparison, MethodRun, comparison_document
from cluster.comparing.table import comparison_markdown, comparison_tables, save_comparison
from cluster.config.loading import validate
from cluster.results.run_record import RunRecord
from gpo.checkpoint import Checkpoint
from gpo.data.example import Example
from gpo.data.task import Split, Task
from gpo.errors import StorageError
from gpo.evaluation.evaluator import Evaluation
from gpo.evaluation.metrics import ExactScorer
from gpo.models.protocol import Usage
from gpo.prompt import Prompt
from gpo.score import Score
from gpo.testing.samples import candidate, trajectory

TASKS = ("billing", "logical_deduction_of_quite_some_objects")
SEEDS = (0, 1, 2)


def end(val: float, test: float) -> Checkpoint:
    search = trajectory(candidate("before", 0.1), [candidate("after", val)])
    tests = {one.prompt.id: Evaluation(Score((test,)), Usage(requests=7)) for one in (search.initial, search.best)}
    return Checkpoint(search, tests)


def method(name: str, ends: Mapping[SearchKey, Checkpoint], **record: object) -> MethodRun:
    model = {"base_url": "http://127.0.0.1:9/v1", "model": "a-model"}
    task = {"name": "billing", "data": {"train": "a.jsonl", "val": "b.jsonl", "test": "c.jsonl"}}
    config = validate(
        {"models": {"task": model, "optimizer": model}, "tasks": [task], "run": {"seeds": list(SEEDS)}},
        base_dir=Path("/"),
    )
    return MethodRun(name, config, RunRecord("r", 0.0, checkpoints=dict(ends), **{"status": "completed", **record}))


def comparison(*methods: MethodRun) -> Comparison:
    examples = dict.fromkeys(Split, (Example("?", ("!",)),))
    tasks = tuple(Task(name, Prompt("p"), examples, ExactScorer()) for name in TASKS)
    return Comparison("sim-[red]compare", tasks, methods)


WHOLE = {SearchKey(task, seed): end(0.5, (4 + seed) / 10) for task in TASKS for seed in SEEDS}
PART = {key: checkpoint for key, checkpoint in WHOLE.items() if key != SearchKey("billing", 2)}


def printed(made: Comparison, width: int) -> str:
    console = Console(file=StringIO(), width=width)
    for table in comparison_tables(made, width):
        console.print(table)
    return str(console.file.getvalue())


def test_means_over_fewer_seeds_are_marked() -> None:
    made = comparison(method("whole", WHOLE), method("part", PART))
    markdown = comparison_markdown(made)
    assert "| whole | 50.0 (12–88) | 50.0 (12–88) |" in markdown
    assert "| part | 50.0 (12–88, 2 of 3) | 45.0 (10–86, 2 of 3) |" in markdown
    whole, part = comparison_document(made)["methods"]
    assert whole["best"]["test"]["by_seed"] == {"0": 0.4, "1": 0.5, "2": 0.6}
    assert whole["best"]["test"]["interval"] == {"level": 0.9, "low": 0.1198, "high": 0.8802}
    assert part["best"]["test"]["by_seed"] == {"0": 0.4, "1": 0.5}


def test_the_best_method_comes_first_and_one_without_scores_last() -> None:
    made = comparison(method("none", {}, status="pending"), method("part", PART), method("whole", WHOLE))
    names = [line.split(" | ")[0].strip("| ") for line in comparison_markdown(made).splitlines() if "| " in line]
    assert names[2:5] == ["whole", "part", "none (pending)"]
    assert made.status == "pending"


@pytest.mark.parametrize("width", [40, 80, 120])
def test_numbers_are_never_wrapped(width: int) -> None:
    made = comparison(*(method(f"method-{number}", WHOLE) for number in range(9)))
    text = printed(made, width)
    assert text.count("12–88") == 2 * 9 + 9
    assert text.count("7–93") == 9 * 2
    assert text.count("50.0") == 3 * 9 + 3 * 9
    assert max(map(len, text.splitlines())) <= width
    assert all(f"method-{number}" in text for number in range(9))


def test_names_are_never_markup() -> None:
    assert "sim-[red]compare" in printed(comparison(method("whole", WHOLE)), 120)


def test_a_table_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "comparison.json").mkdir()
    with pytest.raises(StorageError, match=r"comparison\.json cannot be written"):
        save_comparison(comparison(method("whole", WHOLE)), Folder(str(tmp_path)))
