"""The prompts of an earlier run, read from its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from actors.folder import Folder
from actors.search import SearchKey
from cluster.config import RunConfig
from cluster.config.files import read_yaml
from cluster.config.loading import validate
from cluster.config.prompts import PromptRunConfig, usable_prompt
from cluster.config.section import lasting
from cluster.config.tasks import TaskConfig
from cluster.display.progress import percent
from cluster.results.run_record import RunRecord
from cluster.results.stored_run import RunReader, json_object
from gpo.checkpoint import Checkpoint
from gpo.data.task import Task, fingerprint
from gpo.errors import ConfigError
from gpo.prompt import Prompt
from gpo.text import without_controls
from gpo.trajectory import Candidate


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """What an earlier run found for a task.

    Attributes:
        task: name of the task there.
        texts: its initial prompt and the best other ones, best first.
        best: the others, with what they scored there.
    """

    folder: Folder
    record: RunRecord
    task: str
    texts: tuple[str, ...]
    best: tuple[Candidate, ...]

    def statement(self, config: RunConfig, own: TaskConfig, task: Task) -> str:
        """What the prompts scored there, and whether these scores compare with those of a run of ``config``."""
        scores = ", ".join(percent(candidate.score.mean) for candidate in self.best)
        differences = self._differences(config, own, task)
        compared = f"other {' and '.join(differences)} there" if differences else "same task model, data and metric"
        found = f"{len(self.best)} prompts of task {self.task} of run {self.record.run_id}"
        return f"Task {task.name} tries {found} first; val there, in %: {scores} ({compared})"

    def _differences(self, config: RunConfig, own: TaskConfig, task: Task) -> list[str]:
        try:
            earlier = validate(read_yaml(self.record.config), base_dir=Path.cwd())
            its = next(one for one in earlier.tasks if one.name == self.task)
        except (yaml.YAMLError, ConfigError, ValueError, StopIteration):
            return ["or unknown settings"]
        data = json_object(self.folder.read("data.json")).get(self.task)
        is_same = {
            "task model or sampling": _model(earlier) == _model(config),
            "data": data == fingerprint(task),
            "metric or format of questions": _asked(its) == _asked(own),
        }
        return [what for what, same in is_same.items() if not same]


def _model(config: RunConfig) -> object:
    model = config.models.task
    return lasting(model), getattr(model, "base_url", None), getattr(model, "variant", None)


def _asked(task: TaskConfig) -> object:
    settings = lasting(task)
    return [settings[option] for option in ("answer", "position", "question_marks", "shots")]


def earlier_run(section: PromptRunConfig, task: str, where: str) -> EarlierRun:
    """Read the best prompts of a run.

    Args:
        task: the task that they are for.
        where: the path of the section, for errors.

    Raises:
        ConfigError: the folder holds no run, or the run no prompt of the task.
    """
    folder = Folder.at(str(section.run))
    try:
        record = RunReader(folder).read().record
    except ConfigError as error:
        raise ConfigError(
            f"{where}.run", error.problem, "name the folder of a run, such as one with a file best_prompts.json"
        ) from None
    name = section.task or task
    found = {key: record.checkpoints[key] for key in sorted(record.checkpoints) if key.task == name}
    if not found:
        raise _nothing_found(record, folder, name, where, is_named=section.task is not None)
    initial = next(iter(found.values())).trajectory.initial.prompt
    best = _best(found)
    best.pop(initial, None)
    chosen = sorted(best.values(), key=lambda candidate: -candidate.score.lower)[: section.most]
    prompts = (initial, *(candidate.prompt for candidate in chosen))
    texts = tuple(usable_prompt(prompt.text, f"{where}.run") for prompt in prompts)
    return EarlierRun(folder, record, name, texts, tuple(chosen))


def _best(found: Mapping[SearchKey, Checkpoint]) -> dict[Prompt, Candidate]:
    """Prompt → its best score over the trajectories, without prompts that were dropped."""
    best: dict[Prompt, Candidate] = {}
    for checkpoint in found.values():
        for candidate in checkpoint.trajectory.history:
            known = best.get(candidate.prompt)
            if not candidate.is_dropped and (known is None or candidate.score.lower > known.score.lower):
                best[candidate.prompt] = candidate
    return best


def _nothing_found(record: RunRecord, folder: Folder, task: str, where: str, *, is_named: bool) -> ConfigError:
    reasons = [error for key, error in record.errors.items() if key.task == task]
    if reasons:
        return ConfigError(
            f"{where}.run", f"no checkpoint of task {task!r} in {folder.url!r} can be read ({reasons[0]})", _OTHER_RUN
        )
    tasks: Sequence[str] = sorted({key.task for key in record.checkpoints})
    if not tasks:
        return ConfigError(f"{where}.run", f"the run in {folder.url!r} has scored no prompt yet", _OTHER_RUN)
    return ConfigError(
        f"{where}.task" if is_named else f"{where}.run",
        f"the run in {folder.url!r} has no prompts for a task {without_controls(task)!r}",
        f"set prompt.task to one of its tasks: {', '.join(map(without_controls, tasks))}",
    )


_OTHER_RUN = "name another run"
