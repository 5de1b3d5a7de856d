"""Writes a proposal as a configuration with comments, after the program itself has accepted it."""

from __future__ import annotations

import logging
import os
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from cluster.config.loading import load_config
from cluster.proposing.answers import Answer
from cluster.proposing.columns import FEW_VALUES, named
from cluster.proposing.proposal import Proposal
from cluster.session.models import build_tasks
from gpo.data.task import Task
from gpo.errors import ConfigError

CHECK = "CHECK:"
"""Marks a comment on what is doubtful."""
_WIDTH = 116
_TASK_MODEL, _OPTIMIZER_MODEL = "gpt-4o-mini", "gpt-4o"
_ANSWER_TOKENS = {"text": 128, "exact": 32}
_LISTED_COLUMNS = 12


def require_free(output: Path, *, may_replace: bool) -> None:
    """Check that the configuration can be written, before the data are read.

    Raises:
        ConfigError: the file exists and must not be replaced, or its folder cannot be written to.
    """
    if os.path.lexists(output) and not may_replace:
        raise ConfigError("--output", f"{str(output)!r} exists", "name another file, or replace this one with --force")
    if output.suffix not in (".yaml", ".yml"):
        raise ConfigError("--output", f"{str(output)!r} does not end in .yaml", "name a YAML file")


def configuration(proposal: Proposal, output: Path, *, model: str | None, is_embedded: bool) -> str:
    """The text of the configuration.

    Args:
        output: where it will be written; the path of the data file in it is relative to this file.
        model: name of the model for both roles; ``None`` for the default models.
        is_embedded: whether both models are the embedded one.
    """
    source = proposal.data.source
    located = (
        {"file": _relative(source, output)}
        if isinstance(source, Path)
        else {"huggingface": _hub_name(source.id, output)}
    )
    if not isinstance(source, Path) and source.config is not None:
        located["config"] = source.config
    answer = proposal.answer
    fields = {"target": proposal.target.name}
    if not proposal.is_template:
        fields = {"input": proposal.inputs[0].name, **fields}
    parts = [
        _comment(
            f"Written by gpo init. Correct what is wrong, and look at what is marked with {CHECK}. Then gpo plan shows "
            "what a run takes, and gpo run starts it. docs/reference/configuration.md explains all options.",
        ),
        _entry("run", {"name": proposal.data.name}),
        "\n",
        *_models(model, proposal, is_embedded=is_embedded),
        "\n",
        "tasks:\n",
        _entry("name", proposal.data.name, 4).replace("    ", "  - ", 1),
        *_marked(proposal.doubts["data"]),
        _entry("data", {**located, **proposal.section}, 4),
        *_marked(proposal.doubts["fields"]),
        *(_comment(f"Left out: {names}.", 4) for names in _left_out(proposal)),
        _entry("fields", fields, 4),
        _entry("position", "template", 4) if proposal.is_template else "",
        _comment("The prompt that the search starts from. The more it says about the task, the better.", 4),
        _entry("prompt", proposal.prompt, 4),
        *_marked(answer.doubts),
        _comment(f"Fits {_share(answer)} of the targets{_labels(proposal)}.", 4),
        _entry("answer", {"kind": answer.kind}, 4),
    ]
    if proposal.sizes:
        parts += ["\n", _entry("evaluation", proposal.sizes)]
    if is_embedded:
        parts += [
            "\n",
            _comment("A small model needs few steps; it loses placeholders of templates, so several candidates."),
            _entry("optimizer", {"steps": 3, "candidates": 8 if proposal.is_template else 4}),
        ]
    return "".join(parts)


def written(text: str, output: Path, *, may_replace: bool) -> Task:
    """Write the configuration, once the program has read it and built its task; the task.

    Raises:
        ConfigError: the program refuses it, so that nothing is written; or the file cannot be written.
    """
    # In the same folder, since relative paths start there.
    partial = output.absolute().parent / f".gpo-init-{os.getpid()}.yaml"
    try:
        try:
            partial.write_text(text, encoding="utf-8")
            with _without_repeated_warnings():
                (task,) = build_tasks(load_config(partial))
            if may_replace:
                partial.replace(output)
            else:
                with output.open("x", encoding="utf-8") as file:
                    file.write(text)
        finally:
            partial.unlink(missing_ok=True)
    except FileExistsError:
        raise ConfigError("--output", f"{str(output)!r} exists by now", "name another file") from None
    except OSError as error:
        raise ConfigError("--output", f"{str(output)!r} cannot be written ({error.strerror})", "name another") from None
    return task


@contextmanager
def _without_repeated_warnings() -> Iterator[None]:
    """Without the warnings about rows, which the proposal contains."""
    log = logging.getLogger("cluster.config.tasks")

    def nothing(_record: logging.LogRecord) -> bool:
        return False

    log.addFilter(nothing)
    try:
        yield
    finally:
        log.removeFilter(nothing)


def found_lines(proposal: Proposal, task: Task) -> Iterator[str]:
    """What was found and written, and what is doubtful, line by line."""
    data, answer = proposal.data, proposal.answer
    mean, most = proposal.lengths
    lengths = f"{mean:,.0f} characters on average, {most:,} at most"
    yield f"Rows:     {len(data.rows):,}, with {proposal.num_inputs:,} different inputs of {lengths}"
    yield f"Input:    {', '.join(named(column.name) for column in proposal.inputs)}"
    yield f"Target:   {named(proposal.target.name)}{_labels(proposal)}"
    yield from (f"Left out: {name}" for name in _left_out(proposal))
    yield f"Answers:  kind {answer.kind}, which fits {_share(answer)} of the targets"
    yield f"Splits:   {', '.join(f'{split} {len(examples):,}' for split, examples in task.examples.items())}"
    below = " (below the columns of the input)" if proposal.is_template else ""
    instruction = proposal.prompt.split("\n")[-1]
    yield f"Prompt:   {instruction}{below}"
    for doubt in (doubt for about in proposal.doubts.values() for doubt in about):
        yield f"{CHECK} {doubt}"


def next_commands(output: Path) -> tuple[str, str]:
    """The commands to enter after the file has been read."""
    return shlex.join(["gpo", "plan", str(output)]), shlex.join(["gpo", "run", str(output)])


def _share(answer: Answer) -> str:
    """The share of targets in whole percent, which is 100 % only for all."""
    return f"{int(100 * answer.share)} %"


def _labels(proposal: Proposal) -> str:
    counts = proposal.answer.counts
    if not proposal.answer.labels:
        return f", {len(counts):,} different"
    shown = ", ".join(f"{named(label)} ({count:,})" for label, count in counts.most_common(FEW_VALUES))
    return f": {shown}{f' and {len(counts) - FEW_VALUES:,} more' if len(counts) > FEW_VALUES else ''}"


def _left_out(proposal: Proposal) -> Iterator[str]:
    names = [f"{named(name)} ({reason})" for name, reason in proposal.left_out.items()]
    if names:
        more = f" and {len(names) - _LISTED_COLUMNS:,} more" if len(names) > _LISTED_COLUMNS else ""
        yield f"{', '.join(names[:_LISTED_COLUMNS])}{more}"


def _models(model: str | None, proposal: Proposal, *, is_embedded: bool) -> Iterator[str]:
    yield "models:\n"
    if is_embedded:
        tokens = _ANSWER_TOKENS.get(proposal.answer.kind, 16)
        yield _comment("A small model that runs on this machine; it needs no key. It answers the examples …", 2)
        yield _entry("task", {"kind": "embedded", "sampling": {"temperature": 0, "max_tokens": tokens}}, 2)
        yield _comment("… and writes new prompts.", 2)
        yield _entry(
            "optimizer",
            {"kind": "embedded", "sampling": {"temperature": 1.0, "max_tokens": 96, "extra": {"min_p": 0.05}}},
            2,
        )
        return
    yield _comment(
        "The model that answers the examples, at any endpoint with the API of OpenAI. Set OPENAI_API_KEY, and for an "
        "endpoint other than OpenAI's own OPENAI_BASE_URL.",
        2,
    )
    yield _entry("task", {"model": model or _TASK_MODEL, "max_concurrency": 32}, 2)
    yield _comment("The model that writes new prompts; a strong one finds better prompts.", 2)
    yield _entry("optimizer", {"model": model or _OPTIMIZER_MODEL}, 2)


def _hub_name(name: str, output: Path) -> str:
    """The name of a data set; a folder has a relative path, which begins with a point."""
    if not os.path.isabs(name):  # noqa: PTH117
        return name
    relative = _relative(Path(name), output)
    return relative if relative.startswith(("/", ".")) else f"./{relative}"


def _relative(file: Path, output: Path) -> str:
    relative = os.path.relpath(file.absolute(), output.absolute().parent)
    return str(file.absolute()) if relative.startswith("~") else relative  # "~name" is the home of a user


# -- YAML -------------------------------------------------------------------------------------------------------------


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and texts with signs that cannot be printed with escapes."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    lines = text.split("\n")
    style = None if len(lines) == 1 else "|"
    if not all(line.isprintable() for line in lines):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _entry(name: str, value: object, indent: int = 0) -> str:
    """A section or an option, on one line if it fits there."""
    is_section = isinstance(value, Mapping)
    text = _dumped({name: value}, is_flow=None if is_section else False)
    flat = _dumped({name: value}, is_flow=True).strip()[1:-1]
    if is_section and "\n" not in flat and len(flat) + indent <= _WIDTH:
        text = flat
    # Not with textwrap, for which more characters end a line than for YAML.
    return "".join(f"{' ' * indent if line else ''}{line}\n" for line in text.strip("\n").split("\n"))


def _dumped(value: object, *, is_flow: bool | None) -> str:
    width = 10**6 if is_flow else _WIDTH
    text = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=is_flow, sort_keys=False, allow_unicode=True, width=width
    )
    # PyYAML leaves some signs that cannot be printed, such as U+202E; texts with such signs are in double quotes.
    return "".join(sign if sign.isprintable() or sign == "\n" else _escape(sign) for sign in text)


def _escape(sign: str) -> str:
    return f"\\u{ord(sign):04x}" if ord(sign) <= 0xFFFF else f"\\U{ord(sign):08x}"


def _marked(doubts: Sequence[str]) -> Iterator[str]:
    return (_comment(f"{CHECK} {doubt}", 4) for doubt in doubts)


def _comment(text: str, indent: int = 0) -> str:
    """A comment of one or more lines. Names from the file are in it as ``named`` writes them, without line breaks."""
    lines = textwrap.wrap(text, _WIDTH - indent, break_long_words=False, break_on_hyphens=False)
    return "".join(f"{' ' * indent}# {line}\n" for line in lines)
