"""Configurations that are sent to ``gpo serve``: which files, functions and endpoints they may name.

The facts about each option are on its field (``OptionInfo.posted``), and paths and functions are checked where they are
read (``AllowedPaths``), so that an option that is added later is checked, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.api.keywords import plain_rows
from cluster.config import RunConfig
from cluster.config.loading import validate, validate_section
from cluster.config.models import EndpointConfig
from cluster.config.observability import MetricsConfig
from cluster.config.run import BudgetConfig
from cluster.config.section import AllowedPaths, OptionInfo, Section, options, sections_in
from cluster.session.models import embedded_specs
from gpo.errors import ConfigError
from serve.embedded_model import EmbeddedModelSpec

_MAX_TRAJECTORIES = 100
_ROLES = ("task", "optimizer", "judge", "embedding")
_SPLITS = ("train", "val", "test", "few_shot")
_OF_SERVICE = ("is set by the service", "leave it out")
_ANY_MODELS = {"task": {"model": "-", "price": {"prompt": 1}}, "optimizer": {"model": "-"}}
"""Stand in for the service's models while the rest of a configuration is checked."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the service allows.

    Attributes:
        config: the service's own configuration.
        allow_dir: the folder with files and modules that may be named, absolute and without links; ``None`` is none.
        embedded: the embedded models that the service runs.
    """

    config: RunConfig
    allow_dir: Path | None
    embedded: frozenset[EmbeddedModelSpec]


@dataclass(frozen=True, slots=True)
class PostedRun:
    """A run that may be started.

    Attributes:
        rows: the examples in the request, by the name of their file in the run's folder ``data``.
    """

    config: RunConfig
    rows: dict[str, list[dict[str, Any]]]


def read_posted(body: Mapping[str, Any], terms: Terms, folder: Path) -> PostedRun:
    """Check a configuration from a request. No file is opened that the request may not name.

    Args:
        body: sections as in YAML. Examples may be lists of objects: ``data: {train: […], val: […], test: […]}``, or
            ``data: {rows: […]}`` to be divided. Without ``models``, the run has the service's own.
        folder: the run's folder, absolute and without links.

    Raises:
        ConfigError: names the first option that cannot be used.
    """
    _require_few_trajectories(body)
    raw, rows = _with_files(body, folder)
    _refuse_options_of_service({name: value for name, value in raw.items() if name != "models"}, [RunConfig])
    models, fixed = _models(raw.get("models"), terms.config)
    allowed = AllowedPaths(terms.allow_dir, frozenset(folder / "data" / f"{name}.jsonl" for name in rows))
    base_dir = terms.allow_dir or folder
    checked = validate_section(RunConfig, {**raw, "models": models}, base_dir, allowed)
    _require_shared_modules(checked, terms.allow_dir)
    config = validate(_completed(checked, fixed, terms.config, folder), base_dir)
    if not set(embedded_specs(config)) <= terms.embedded:
        raise ConfigError("models", "an embedded model is not one that the service runs", "leave models out")
    return PostedRun(config, rows)


def _require_few_trajectories(body: Mapping[str, Any]) -> None:
    tasks, run = body.get("tasks"), body.get("run")
    seeds = run.get("seeds") if isinstance(run, dict) else None
    num_tasks, num_seeds = (len(many) if isinstance(many, list) else 1 for many in (tasks, seeds))
    if num_tasks * num_seeds > _MAX_TRAJECTORIES:
        problem = f"{num_tasks} tasks with {num_seeds} seeds are more than {_MAX_TRAJECTORIES} trajectories"
        raise ConfigError("run.seeds", problem, "start several runs")


# -- examples ---------------------------------------------------------------------------------------------------------


def _with_files(body: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """The sections with paths of files in place of examples, and the examples."""
    tasks, rows = body.get("tasks"), dict[str, list[dict[str, Any]]]()
    if not isinstance(tasks, list):
        return dict(body), rows
    changed = []
    for index, task in enumerate(tasks):
        data = task.get("data") if isinstance(task, dict) else None
        if not isinstance(data, dict):
            changed.append(task)
            continue
        data = dict(data)
        for name in ("rows", *_SPLITS):
            if not isinstance(given := data.get(name), list):
                continue
            where = f"tasks[{index}].data.{name}"
            if name == "rows" and "file" in data:
                raise ConfigError(where, "is set as well as file", "keep one of the two")
            rows[f"{index}-{name}"] = list(plain_rows(data.pop(name), where))
            if not given:
                raise ConfigError(where, "holds no example", "send at least one")
            data["file" if name == "rows" else name] = str(folder / "data" / f"{index}-{name}.jsonl")
        changed.append({**task, "data": data})
    return {**body, "tasks": changed}, rows


# -- what the service sets --------------------------------------------------------------------------------------------


def _refuse_options_of_service(raw: Any, kinds: Sequence[type[Section]], path: str = "") -> None:
    """Refuse every option, at any depth, that a request may not set.

    Args:
        kinds: the sections that ``raw`` may be.
    """
    for index, entry in enumerate(raw if isinstance(raw, list) else ()):
        _refuse_options_of_service(entry, kinds, f"{path}[{index}]")
    for name, value in raw.items() if isinstance(raw, dict) else ():
        here = f"{path}.{name}".removeprefix(".")
        fields = [kind.model_fields[name] for kind in kinds if name in kind.model_fields]
        if any(OptionInfo.of(field).posted for field in fields):
            raise ConfigError(here, *_OF_SERVICE)
        _refuse_options_of_service(value, [below for field in fields for below in sections_in(field.annotation)], here)


def _require_shared_modules(config: RunConfig, allow_dir: Path | None) -> None:
    """Refuse folders of modules other than the allowed one: a module that is not there is searched elsewhere."""
    for path, _, value in options(config):
        if path.endswith(".folder") and value is not None and value != allow_dir:
            raise ConfigError(path, *_OF_SERVICE)


def _completed(
    config: RunConfig, fixed: Mapping[str, Mapping[str, Any]] | None, service: RunConfig, folder: Path
) -> dict[str, Any]:
    """The sections with everything that the service sets."""
    known, completed = service.model_dump(mode="json"), config.model_dump(mode="json")
    for name, field in RunConfig.model_fields.items():
        if OptionInfo.of(field).posted:
            completed[name] = known[name]
    completed["metrics"] = MetricsConfig().model_dump(mode="json")  # a run in this process counts nothing
    completed["run"]["dir"] = str(folder.parent)
    completed["budget"] = _bounded(config.budget, service.budget).model_dump(mode="json")
    if fixed is None:
        completed["models"] = known["models"]
        return completed
    for role in _ROLES:
        if isinstance(getattr(config.models, role), EndpointConfig):
            completed["models"][role] |= fixed[role]
    return completed


def _bounded(posted: BudgetConfig, service: BudgetConfig) -> BudgetConfig:
    """The budget of a run: as posted, or as the service's where it is left out."""
    bounds = {}
    for name in BudgetConfig.model_fields:
        value, most = getattr(posted, name), getattr(service, name)
        if most is not None and value is not None and value > most:
            raise ConfigError(f"budget.{name}", f"{value:,} is more than the service allows, {most:,}", "lower it")
        bounds[name] = most if value is None else value
    return BudgetConfig(**bounds)


# -- models -----------------------------------------------------------------------------------------------------------


def _models(posted: Any, service: RunConfig) -> tuple[Any, dict[str, dict[str, Any]] | None]:
    """The section as it is checked, and for each role what the service sets; ``None`` for the service's own models."""
    if posted is None:
        return _ANY_MODELS, None
    if not isinstance(posted, dict):
        return posted, {}
    sections, fixed = dict(posted), {}
    for role, section in posted.items():
        if isinstance(section, dict) and section.get("kind") in (None, "openai") and role in _ROLES:
            fixed[role] = _fixed(role, section, service)
            sections[role] = {name: value for name, value in section.items() if name not in fixed[role]}
    return sections, fixed


def _fixed(role: str, section: Mapping[str, Any], service: RunConfig) -> dict[str, Any]:
    """The options of an endpoint that are as in the service's configuration: address, keys, limits.

    A key thus goes to no other address than the service sends it to.
    """
    where, model = f"models.{role}", section.get("model")
    endpoint = _endpoint(role, section, service)
    known = endpoint.model_dump(mode="json")
    facts = {name: OptionInfo.of(field).posted for name, field in EndpointConfig.model_fields.items()}
    names = [name for name, fact in facts.items() if fact]
    if model == endpoint.model:
        names.append("price")
    elif service.budget.usd is not None:
        problem = "is not a model of the service, whose budget in dollars needs its price"
        raise ConfigError(f"{where}.model", problem, "choose a model of the service, or leave models out")
    for name in names:
        if name in section and (facts[name] == "refused" or section[name] != known[name]):
            raise ConfigError(f"{where}.{name}", *_OF_SERVICE)
    return {"base_url": endpoint.base_url, **{name: known[name] for name in names}}


def _endpoint(role: str, section: Mapping[str, Any], service: RunConfig) -> EndpointConfig:
    """The service's endpoint that a section means: at the same address, and if possible of the same model and role."""
    models = {name: getattr(service.models, name) for name in (role, *_ROLES)}
    found = [model for model in models.values() if isinstance(model, EndpointConfig)]
    url = section.get("base_url")
    if url:
        found = [model for model in found if isinstance(url, str) and model.base_url == url.rstrip("/")]
    if not found:  # the service's addresses are not shown
        raise ConfigError(
            f"models.{role}.base_url",
            "is not the address of an endpoint of the service" if url else "is missing: the service has no endpoint",
            "leave it out, or leave models out",
        )
    same = [model for model in found if model.model == section.get("model")]
    return (same or found)[0]
