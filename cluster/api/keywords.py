"""From the arguments of ``gpo.optimize`` to a configuration: the same options as in YAML, under the same names."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

from actors.folder import Folder
from cluster.api.endpoint import Endpoint
from cluster.config import RunConfig
from cluster.config.loading import validate
from cluster.config.optimizer import OptimizerConfig
from cluster.config.run import EvaluationConfig
from cluster.config.tasks import TaskConfig
from gpo.data.files import read_rows
from gpo.data.task import Split
from gpo.data.template import Template
from gpo.errors import ConfigError, StorageError
from gpo.evaluation.prompt_template import placeholders

_PYTHON_NAMES = (
    ("tasks[0].answer.metric", "metric"),
    ("tasks[0].answer", "metric"),
    ("tasks[0].", ""),
    ("models.task", "task_model"),
    ("models.optimizer", "optimizer_model"),
    ("models.judge", "judge_model"),
    ("models.embedding", "embedding_model"),
    ("optimizer.steps", "steps"),
    ("run.seeds", "seed"),
    ("run.name", "name"),
    ("run.dir", "run_dir"),
)
"""How an option of the configuration begins, and the argument that it is set by."""
_COMMANDS_NAMES = (
    ("--run-dir", "run_dir"),
    ("RUN_DIR", "run_dir"),
    ("--run-id", "run_id"),
    ("--address", "address"),
    ("--set", "overrides"),
    ("CONFIG", "config"),
)
"""An option of a command, and the argument in its place."""
_TARGETS = ("target", "label", "answer", "output")
_INPUTS = ("input", "text", "question")
"""Names of columns that are used where ``fields`` does not name one."""


@contextmanager
def named_by_arguments(*, has_configuration: bool = False) -> Iterator[None]:
    """Let errors in the block name arguments instead of options.

    Args:
        has_configuration: whether the user wrote one, and knows its options; only those of commands are renamed.

    Raises:
        ConfigError: as in the block, with the other name.
    """
    try:
        yield
    except ConfigError as error:
        field, remedy = error.field, error.remedy.replace("add --resume", "make the same call")
        for option, argument in _COMMANDS_NAMES if has_configuration else (*_COMMANDS_NAMES, *_PYTHON_NAMES):
            field = field if has_configuration else field.replace("tasks.0.", "tasks[0].")
            if field == option or (field.startswith(option) and not field[len(option)].isalnum()):
                name = f"{argument}{field[len(option) :]}"
                raise ConfigError(name, error.problem.replace("models.", ""), remedy) from None
            if option.endswith(".") and field.startswith(option):
                raise ConfigError(field.removeprefix(option), error.problem, remedy) from None
        raise


@dataclass
class Arguments:
    """The arguments of ``gpo.optimize``, on their way to a configuration.

    Attributes:
        functions: the functions among them, by the name that the configuration has for each.
        rows: examples that were passed as objects, by the name of their file.
    """

    values: Mapping[str, Any]
    functions: dict[str, Callable[..., Any]] = field(default_factory=dict)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def configuration(self, folder: Folder) -> RunConfig:
        """The checked configuration. Examples that were passed as objects are files in the run's folder.

        Raises:
            ConfigError: names the argument that cannot be used.
        """
        return validate(self.sections(folder), base_dir=Path.cwd())

    def require_importable(self) -> None:
        """Refuse functions that other processes cannot import.

        Raises:
            ConfigError: names the first argument with such a function.
        """
        for argument in ("metric", "task_model", "optimizer_model", "judge_model"):
            function = self.values.get(argument)
            if callable(function) and not _is_importable(function):
                name = getattr(function, "__qualname__", type(function).__name__)
                raise ConfigError(
                    argument,
                    f"the function {name!r} is known only in this process, and the cluster cannot import it",
                    "move it to a module, as a function with a name, and import it from there or pass its name as "
                    "'module:function'",
                )

    def save_rows(self, folder: Folder, *, is_new: bool) -> None:
        """Write the examples that were passed as objects into the run's folder.

        Args:
            is_new: whether no run is in the folder yet; a run that is there needs the examples that it began with.

        Raises:
            ConfigError: the run in the folder began with other examples.
            StorageError: they cannot be written.
        """
        for name, rows in self.rows.items():
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(errors="replace")
            try:
                known = folder.read(f"data/{name}.jsonl")
                if known == content:
                    continue
                if not is_new and known is not None:
                    raise ConfigError(
                        name,
                        f"the examples are not those that the run in {folder.url!r} began with",
                        "pass the same ones, or name another run_dir",
                    )
                folder.write(f"data/{name}.jsonl", content)
            except OSError as error:
                raise StorageError(f"{folder.path(f'data/{name}.jsonl')} cannot be written: {error}") from None

    def sections(self, folder: Folder) -> dict[str, Any]:
        """The configuration's sections, not checked yet; see ``configuration``.

        Raises:
            ConfigError: names the argument that cannot be used.
        """
        given = {name: value for name, value in self.values.items() if value is not None}
        more = {name: value for name, value in given.pop("options", {}).items() if value is not None}
        task = {name: given.pop(name) for name in list(given) if name in TaskConfig.model_fields and name != "data"}
        for name, value in more.items():
            if name in TaskConfig.model_fields:
                task[name] = value
            elif name in RunConfig.model_fields and name not in ("tasks", "models", "run"):
                given[name] = value
            else:
                raise self._unknown(name)
        name = str(task.pop("name", "task"))
        task["data"] = self._data(given, folder)
        self._add_fields(task, folder)
        if "metric" in given:
            task["answer"] = self._answer(given.pop("metric"), task.get("answer", {}))
        models = {
            role: self._model(given.pop(f"{role}_model"), f"{role}_model")
            for role in ("task", "optimizer", "judge", "embedding")
            if f"{role}_model" in given
        }
        if "task" not in models:
            raise ConfigError("task_model", "is missing", "name a model, such as 'gpt-4o-mini', or pass a function")
        models.setdefault("optimizer", models["task"])
        seed = given.pop("seed", 0)
        optimizer = given.pop("optimizer", {})
        for argument, section in (("optimizer", optimizer), ("answer", task.get("answer", {}))):
            if not isinstance(section, Mapping):
                problem = f"a {type(section).__name__} is not a section"
                raise ConfigError(argument, problem, "pass a dictionary of options")
        optimizer = dict(optimizer)
        if "steps" in given:
            optimizer["steps"] = given.pop("steps")
            optimizer.pop("epochs", None)
        return {
            **given,
            "run": {"name": name, "seeds": list(seed) if isinstance(seed, list | tuple | range) else [seed]},
            "models": models,
            "tasks": [{"name": name, **task}],
            **({"optimizer": optimizer} if optimizer else {}),
        }

    def _unknown(self, name: str) -> ConfigError:
        unknown = ("options", "tasks", "models", "run")
        known = [one for one in (*self.values, *TaskConfig.model_fields, *RunConfig.model_fields) if one not in unknown]
        if name == "models":
            return ConfigError(name, "is not an argument", "pass task_model, optimizer_model and judge_model")
        near = get_close_matches(name, known, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else "see help(gpo.optimize)"
        for section, kind in (("optimizer", OptimizerConfig), ("evaluation", EvaluationConfig)):
            if name in kind.model_fields:
                remedy = f"it is an option of a section: pass {section}={{'{name}': …}}"
        return ConfigError(name, "is not an argument", remedy)

    # -- data ---------------------------------------------------------------------------------------------------------

    def _data(self, given: dict[str, Any], folder: Folder) -> dict[str, Any]:
        data, split = given.pop("data", None), given.pop("split", None)
        splits = {str(one): given.pop(str(one)) for one in Split if str(one) in given}
        if split is not None and (splits or isinstance(data, Mapping)):
            raise ConfigError("split", "is set, but the examples are divided already", "leave it out")
        if data is not None and splits:
            raise ConfigError(next(iter(splits)), "is set as well as data", "keep one of the two")
        if data is None:
            if missing := [str(one) for one in Split if str(one) not in splits]:
                remedy = "pass train, val and test, or data to be divided"
                raise ConfigError(missing[0], "is missing", remedy)
            return {name: self._file(value, name, folder) for name, value in splits.items()}
        if isinstance(data, Mapping):  # a section as in YAML: a benchmark, or a data set of the Hugging Face Hub
            if not {"benchmark", "huggingface", "file", "train"} & data.keys():
                remedy = "pass a list of dictionaries, one for each example, such as frame.to_dict('records')"
                raise ConfigError("data", "a dictionary of columns cannot be used as examples", remedy)
            return dict(data)
        section: dict[str, Any] = {"file": self._file(data, "data", folder)}
        if split is not None:
            if not isinstance(split, Mapping) and not (isinstance(split, list | tuple) and len(split) == len(Split)):
                raise ConfigError("split", f"{split!r} is not three sizes", "pass those of train, val and test")
            section["split"] = split if isinstance(split, Mapping) else dict(zip(map(str, Split), split, strict=True))
        return section

    def _file(self, value: Any, name: str, folder: Folder) -> str:
        """The file with the examples, which is written later if they were passed as objects."""
        if isinstance(value, str | Path):
            return str(value)
        if folder.local is None:
            remedy = "write them to a file and pass its path, or name a local run_dir"
            raise ConfigError(name, f"examples as objects need a local run_dir, not {folder.url!r}", remedy)
        self.rows[name] = list(plain_rows(value, name))
        if not self.rows[name]:
            raise ConfigError(name, "holds no example", "pass at least one")
        return str(folder.local / "data" / f"{name}.jsonl")

    def _add_fields(self, task: dict[str, Any], folder: Folder) -> None:
        """Set what follows from the prompt and the columns, where the arguments leave it open."""
        prompt = task.get("prompt")
        texts = (
            prompt.values() if isinstance(prompt, Mapping) else prompt if isinstance(prompt, list | tuple) else [prompt]
        )
        named = [one for text in texts if isinstance(text, str) for one in placeholders(text)]
        if named:
            task.setdefault("position", "template")
        if not isinstance(task.get("fields") or {}, Mapping):
            remedy = "pass a dictionary, such as {'input': 'text', 'target': 'label'}"
            raise ConfigError("fields", f"a {type(task['fields']).__name__} does not say which column is which", remedy)
        fields = dict(task.get("fields") or {})
        columns = self._columns(task["data"])
        if columns and task.get("position") == "template":
            used = {column for one in named for column in _columns_in(one)}
            _choose(fields, "target", [one for one in columns if one not in used], _TARGETS)
        elif columns:
            _choose(fields, "target", [one for one in columns if one != fields.get("input")], _TARGETS)
            _choose(fields, "input", [one for one in columns if one != fields.get("target", "target")], _INPUTS)
            for role, known in (("input", _INPUTS), ("target", _TARGETS)):
                if role not in fields and f"{role}_template" not in fields and role not in columns:
                    if role == "input" and ("template" in fields or "program" in task):
                        continue
                    problem = f"none of the columns {', '.join(columns)} is surely the {role}"
                    remedy = f"set it, such as {{'{role}': '{columns[0]}'}}; usual names are {', '.join(known)}"
                    raise ConfigError(f"fields.{role}", problem, remedy)
        if fields:
            task["fields"] = fields

    def _columns(self, data: Mapping[str, Any]) -> list[str]:
        """The columns of the first example, if it is an object or in a file."""
        name = "data" if "file" in data else "train"
        if name in self.rows:
            return list(self.rows[name][0])
        path = data.get("file" if "file" in data else "train")
        if not isinstance(path, str) or "benchmark" in data or "huggingface" in data:
            return []
        rows = read_rows(Path(path).expanduser(), frozenset(), where=name)
        return [column for _, row in islice(rows, 1) for column in row]

    # -- functions and models -----------------------------------------------------------------------------------------

    def _answer(self, metric: Any, answer: Mapping[str, Any]) -> dict[str, Any]:
        if callable(metric):
            return {**answer, "kind": "custom", "metric": self._named(metric), **_folder_of(metric)}
        if isinstance(metric, Mapping):
            return {**answer, **metric}
        if isinstance(metric, str) and ":" in metric:
            return {**answer, "kind": "custom", "metric": metric}
        return {**answer, "kind": metric}

    def _model(self, model: Any, argument: str) -> dict[str, Any]:
        if isinstance(model, Endpoint):
            return dict(model.options)
        if isinstance(model, Mapping):
            return dict(model)
        if isinstance(model, str):
            return {"kind": "embedded"} if model == "embedded" else {"model": model}
        if callable(model):
            return {"kind": "function", "function": self._named(model), **_folder_of(model)}
        problem = f"a {type(model).__name__} is not a model"
        raise ConfigError(argument, problem, "pass a name, a gpo.Endpoint, or an async function of messages")

    def _named(self, function: Callable[..., Any]) -> str:
        """The name of a function in the configuration."""
        module = getattr(function, "__module__", "__main__")
        name = getattr(function, "__qualname__", type(function).__name__)
        if not _is_importable(function):
            module, name = "__main__", re.sub(r"\W+", "_", name.replace("<locals>.", "")).strip("_") or "function"
        while self.functions.get(f"{module}:{name}", function) is not function:  # two lambdas, for example
            name += "_"
        self.functions[f"{module}:{name}"] = function
        return f"{module}:{name}"


def _is_importable(function: Callable[..., Any]) -> bool:
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if module in (None, "__main__") or not name.isidentifier():
        return False
    return getattr(sys.modules.get(str(module)), name, None) is function


def _folder_of(function: Callable[..., Any]) -> dict[str, str]:
    """The folder in which other processes find the function's module, as an option.

    None where no process can, or where the module is installed.
    """
    path = getattr(sys.modules.get(getattr(function, "__module__", "") or ""), "__file__", None)
    if path is None or not _is_importable(function):
        return {}
    depth = function.__module__.count(".") + (Path(path).name == "__init__.py")
    folder = str(Path(path).resolve().parents[depth])
    return {} if folder in map(os.path.realpath, sysconfig.get_paths().values()) else {"folder": folder}


def _columns_in(one: str) -> frozenset[str]:
    """The columns of a placeholder; those of an invalid one are reported later."""
    try:
        variables = Template(one, "prompt").variables
    except ConfigError:
        return frozenset()
    quoted = re.findall(r"""row\[["']([^"']+)["']\]|row\.(\w+)""", one)
    return variables | {name for pair in quoted for name in pair if name}


def _choose(fields: dict[str, Any], role: str, columns: Sequence[str], known: Sequence[str]) -> None:
    """Set the column of a role if it has not its usual name and there is one column that it must be."""
    if role in fields or f"{role}_template" in fields or (role == "input" and "template" in fields):
        return
    likely = [name for name in known if name in columns] or list(columns)
    if likely and role not in columns and (len(likely) == 1 or likely[0] in known):
        fields[role] = likely[0]


def plain_rows(value: Any, name: str) -> Iterator[dict[str, Any]]:
    """Rows as JSON values: of dictionaries, a data frame of pandas or polars, or any iterable of mappings."""
    if hasattr(value, "to_dicts"):
        value = value.to_dicts()
    elif hasattr(value, "to_dict") and hasattr(value, "columns"):
        value = value.to_dict("records")
    if isinstance(value, Mapping) or not hasattr(value, "__iter__"):
        remedy = "pass a list of dictionaries, a data frame, or the path of a file"
        raise ConfigError(name, f"a {type(value).__name__} cannot be used as examples", remedy)
    for number, row in enumerate(value, start=1):
        if not isinstance(row, Mapping):
            problem = f"row {number} is a {type(row).__name__}, not a dictionary"
            raise ConfigError(name, problem, "pass one dictionary for each example, such as {'input': …, 'target': …}")
        yield {str(column): _plain(cell, f"{name}, row {number}, column {column!r}") for column, cell in row.items()}


def _plain(cell: Any, where: str) -> Any:
    if hasattr(cell, "tolist"):  # a number or an array of numpy
        return _plain(cell.tolist(), where)
    if isinstance(cell, list | tuple):
        return [_plain(one, where) for one in cell]
    if isinstance(cell, Mapping):
        return {str(name): _plain(one, where) for name, one in cell.items()}
    if isinstance(cell, float) and not math.isfinite(cell):
        return None  # how data frames write a missing value
    if cell is None or isinstance(cell, str | int | float | bool):
        return cell
    if type(cell).__name__ in ("NaTType", "NAType"):  # a missing value of pandas
        return None
    if isinstance(cell, bytes):
        raise ConfigError(where, "bytes are not a text", "decode them")
    return str(cell)
