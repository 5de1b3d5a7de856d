"""The best prompt of a task as text, JSON, a request of the OpenAI API, or for promptfoo, DSPy or inspect_ai."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from actors.folder import Folder
from actors.search import SearchKey
from cluster.config.files import read_yaml
from cluster.config.loading import validate
from cluster.config.models import ChatEndpointConfig
from cluster.config.run import RunConfig
from cluster.config.tasks import TaskConfig
from cluster.reporting.inspect_log import inspect_log
from cluster.results.answers import SearchAnswers, ShownExample, read_examples
from cluster.results.outputs import best_prompts
from cluster.results.run_record import RunRecord
from cluster.results.stored_run import RunReader
from gpo.data.example import Example
from gpo.data.task import Split
from gpo.errors import ConfigError, EvaluationError
from gpo.evaluation.answer_format import AnswerFormat, Position
from gpo.evaluation.dspy_program import DSPyProgram
from gpo.evaluation.prompt_template import placeholders
from gpo.models.protocol import Message
from gpo.prompt import Prompt, parts_of

Format = Literal["text", "json", "openai", "promptfoo", "dspy", "inspect"]
FORMATS: tuple[Format, ...] = get_args(Format)
_INPUT = "{{ input }}"


@dataclass(frozen=True)
class _Exported:
    """A task, its best prompt, and what its requests look like."""

    folder: Folder
    config: RunConfig
    task: TaskConfig
    best: Mapping[str, Any]

    @property
    def prompt(self) -> str:
        return str(self.best["prompt"])

    def messages(self) -> list[Message]:
        """The conversation, with placeholders where the columns of an example belong.

        Raises:
            ConfigError: a program makes the requests, so there is not one conversation.
        """
        if self.task.program is not None:
            problem = f"task {self.task.name} is answered by a program, which writes its requests itself"
            raise ConfigError("--format", problem, "export its prompts as text or json")
        if self.task.shots or self.task.answer.rounds == 2:
            problem = f"task {self.task.name} shows solved examples or asks twice, which one request cannot hold"
            raise ConfigError("--format", problem, "export the prompt as text or json")
        texts = tuple((one, one) for one in placeholders(self.prompt))
        form = AnswerFormat(self.task.position, question_marks=self.task.question_marks)
        return form.messages(Prompt(self.prompt), Example(_INPUT, ("",), texts))

    def conversation(self, example: ShownExample) -> list[Message]:
        """What was asked about an example; the input alone where it cannot be known any more."""
        is_known = self.task.program is None and self.task.position is not Position.TEMPLATE
        if not is_known or self.task.shots or self.task.answer.rounds == 2:
            return [{"role": "user", "content": example.input}]
        form = AnswerFormat(self.task.position, question_marks=self.task.question_marks)
        return form.messages(Prompt(self.prompt), Example(example.input, example.targets or ("",)))


def _model(config: RunConfig) -> str:
    model = config.models.task
    return model.model if isinstance(model, ChatEndpointConfig) else "the task model"


def exported(folder: Folder, form: str, task: str | None) -> str:
    """The best prompt of a task in a run's folder, in the format.

    Raises:
        ConfigError: the format or the task is unknown, no prompt has a score, or the format cannot hold the prompt.
    """
    if form not in FORMATS:
        raise ConfigError("--format", f"{form!r} is unknown", f"choose one of: {', '.join(FORMATS)}")
    stored = RunReader(folder).read()
    record = stored.record
    known = best_prompts(record)
    if not known:
        raise ConfigError("RUN_DIR", "no prompt of this run has a score yet", "wait for the first step")
    name = task or next(iter(known))
    if name not in known:
        raise ConfigError("--task", f"{name!r} is not in the run", f"choose one of: {', '.join(known)}")
    if form == "text":
        return f"{known[name]['prompt']}\n"
    if form == "json":
        return _json({"task": name, **known[name]})
    config = _configuration(record)
    section = next(one for one in config.tasks if one.name == name)
    one = _Exported(folder, config, section, known[name])
    match form:
        case "openai":
            return _json(_request(one))
        case "promptfoo":
            return _promptfoo(one)
        case "inspect":
            key = SearchKey(name, one.best["trajectory"]["seed"])
            times = {moment: stored.summary.get(moment) for moment in ("started_at", "finished_at")}
            answers = SearchAnswers.read(folder, key)
            return _json(inspect_log(record, times, key, answers, _model(one.config), one.conversation))
        case _:
            return _json(_dspy(one))


def _configuration(record: RunRecord) -> RunConfig:
    try:
        return validate(read_yaml(record.config), base_dir=Path.cwd())
    except (yaml.YAMLError, ConfigError, ValueError, TypeError) as error:
        problem = f"its config.yaml cannot be read ({error})"
        raise ConfigError("RUN_DIR", problem, "restore the file") from None


def _request(one: _Exported) -> dict[str, Any]:
    """The body of ``POST /v1/chat/completions``; columns are placeholders in double braces."""
    model = one.config.models.task
    sampling = model.sampling
    limit = model.completion_limit if isinstance(model, ChatEndpointConfig) else "max_tokens"
    settings = {"temperature": sampling.temperature, "top_p": sampling.top_p, limit: sampling.max_tokens}
    known = {key: value for key, value in settings.items() if value is not None}
    return {"model": _model(one.config), "messages": one.messages(), **known, **sampling.extra}


def _promptfoo(one: _Exported) -> str:
    """A configuration of promptfoo with the prompt, the task model, and the ``test`` examples as tests."""
    model = one.config.models.task
    provider: dict[str, Any] = {"id": "openai:chat:the task model"}
    if isinstance(model, ChatEndpointConfig):
        provider = {"id": f"openai:chat:{model.model}", "config": {"apiBaseUrl": model.base_url}}
        if model.api_key_env:
            provider["config"]["apiKeyEnvar"] = model.api_key_env
        if model.sampling.temperature is not None:
            provider["config"]["temperature"] = model.sampling.temperature
    document: dict[str, Any] = {
        "description": f"{one.task.name}: the best prompt of a GPO run",
        "prompts": [{"label": "best", "raw": json.dumps(one.messages(), ensure_ascii=False)}],
        "providers": [provider],
    }
    is_short = one.task.answer.kind in (None, "label", "choice", "boolean", "number", "exact")
    if is_short and one.task.position is not Position.TEMPLATE:  # the columns of templates are not recorded
        examples = read_examples(one.folder, one.task.name)
        document["tests"] = [
            {
                "vars": {"input": example.input},
                "assert": [{"type": "javascript", "value": _names_a_target(example.targets)}],
            }
            for (split, _), example in examples.items()
            if split is Split.TEST
        ]
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)


def _names_a_target(targets: Sequence[str]) -> str:
    """An expression that is true for an answer that names one of the targets as a whole word."""
    patterns = json.dumps([re.escape(target.strip()) for target in targets], ensure_ascii=False)
    return f"{patterns}.some((one) => new RegExp(`(^|\\\\W)${{one}}($|\\\\W)`, 'i').test(output))"


def _dspy(one: _Exported) -> dict[str, Any]:
    """The saved state of a ``dspy.Predict("input -> answer")``, or of one with the template's columns as inputs.

    A program with several prompts is a module with a predictor of each name.
    """
    parts = parts_of(one.prompt) if one.task.prompts else {}
    section = one.task.program
    program = section.reference if section is not None else None
    if section is not None and isinstance(program, DSPyProgram):
        try:
            with section.variables():
                return program.load().saved(parts or dict.fromkeys(one.task.prompts or (), one.prompt))
        except EvaluationError as failure:
            raise ConfigError("--format", str(failure), "export where the program is") from None
    if len(parts) > 1:
        return {**{name: _predictor(text, ["input"]) for name, text in parts.items()}, **_METADATA}
    names = [found.strip("{} ") for found in placeholders(one.prompt)]
    if not all(name.isidentifier() for name in names):
        problem = "the placeholders are not all plain column names, which DSPy's fields are"
        raise ConfigError("--format", problem, "export the prompt as text or openai")
    return {**_predictor(one.prompt, names or ["input"]), **_METADATA}


_METADATA: dict[str, Any] = {"metadata": {"dependency_versions": {}}}


def _predictor(instructions: str, inputs: list[str]) -> dict[str, Any]:
    fields = [{"prefix": f"{name.replace('_', ' ').title()}:", "description": f"${{{name}}}"} for name in inputs]
    signature = {"instructions": instructions, "fields": [*fields, {"prefix": "Answer:", "description": "${answer}"}]}
    return {"traces": [], "train": [], "demos": [], "signature": signature, "lm": None}


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
