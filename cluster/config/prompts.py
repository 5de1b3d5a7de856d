"""Option ``tasks[].prompt``: the initial prompt, and the prompts that a search tries first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    PositiveInt,
    StringConstraints,
    Tag,
    ValidationInfo,
)
from typing_extensions import TypeAliasType

from cluster.config.secrets import IN_ENVIRONMENT, PROBLEM, holds_credentials
from cluster.config.section import LOCATION, AllowedPaths, ConfigPath, Section, absolute, option_of, unfit
from gpo.data.files import cell_texts, read_rows, read_text
from gpo.errors import ConfigError
from gpo.evaluation.prompt_template import in_messages
from gpo.strategies.proposer import MAX_CHARACTERS, MAX_WORDS
from gpo.text import without_controls

COLUMN = "prompt"
"""The column of a file with prompts."""


def usable_prompt(text: str, where: str) -> str:
    """A prompt without control characters and white space around it.

    Args:
        where: its location, for errors.

    Raises:
        ConfigError: it is empty, or longer than a prompt of the optimizer model may be.
    """
    text = without_controls(text).strip()
    if not text:
        raise ConfigError(where, "the prompt is empty", "write one, or remove it")
    if len(text.split()) > MAX_WORDS or len(text) > MAX_CHARACTERS:
        bounds = f"{MAX_WORDS:,} words or {MAX_CHARACTERS:,} characters"
        raise ConfigError(where, f"the prompt has more than {bounds}", "shorten it")
    return text


def _usable(text: str) -> str:
    try:
        return usable_prompt(text, "")
    except ConfigError as error:
        raise unfit(f"{error.problem}; {error.remedy}") from None


def _distinct(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


PromptText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
PromptTexts = Annotated[
    tuple[Annotated[str, AfterValidator(_usable)], ...], Field(min_length=1), AfterValidator(_distinct)
]
"""Distinct prompts; the first is the initial prompt."""


class MessagesConfig(Section):
    """A prompt of two messages, with ``position: template``."""

    system: PromptText
    """The system message; it may contain placeholders."""
    user: PromptText
    """The message of the user; it may contain placeholders."""


class _SourceConfig(Section):
    """Part of a section that names where prompts come from."""

    prompts: PromptTexts | None = None
    """What was found there, the initial prompt first. A run writes it into its ``config.yaml``, so that it can be
    resumed without the source. Default: read the source."""


class PromptFileConfig(_SourceConfig):
    """A file of prompts."""

    file: Annotated[ConfigPath, LOCATION]
    """Text with one prompt per line (``.txt``), or a file with a column ``prompt``: JSON Lines (``.jsonl``), a JSON
    list of texts or objects (``.json``) or a table (``.csv``, ``.tsv``). The first prompt is the initial one."""

    def read(self, where: str) -> tuple[str, ...]:
        """The distinct prompts of the file, in order.

        Raises:
            ConfigError: the file cannot be read, holds no prompt, or one that cannot be used.
        """
        if self.prompts is not None:
            return self.prompts
        located = _located_prompts(self.file, f"{where}.file")
        found = _distinct(tuple(usable_prompt(text, location) for location, text in located))
        if not found:
            raise ConfigError(f"{where}.file", f"{str(self.file)!r} contains no prompt", "write at least one")
        return found


def _located_prompts(path: Path, where: str) -> Iterator[tuple[str, str]]:
    """Each prompt of a file with its location, for errors."""
    suffix = path.suffix.lower()
    if suffix == ".txt":
        for number, line in enumerate(read_text(path, where).split("\n"), start=1):
            if line.strip():
                yield f"{where} ({path.name}:{number})", line
        return
    if suffix == ".json":
        rows: Any = _json_rows(path, where)
    elif suffix in (".jsonl", ".csv", ".tsv"):
        rows = read_rows(path, frozenset({COLUMN}), where=where)
    else:
        raise ConfigError(
            where, f"{str(path)!r} is none of .txt, .jsonl, .json, .csv and .tsv", "convert it to one of these"
        )
    for number, row in rows:
        location = f"{where} ({path.name}:{number})"
        if COLUMN not in row:
            known = ", ".join(str(name) for name in row)
            raise ConfigError(location, f"there is no column 'prompt'; the columns are: {known}", "add that column")
        text, *more = cell_texts(row[COLUMN], COLUMN, location)
        if more:
            raise ConfigError(location, "column 'prompt' is a list", "write one prompt per row")
        yield location, text


def _json_rows(path: Path, where: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The objects in a list, counted from 1; a text stands for an object with this prompt."""
    try:
        rows = json.loads(read_text(path, where))
    except (ValueError, RecursionError) as error:
        raise ConfigError(where, f"{str(path)!r} is not valid JSON ({error})", "correct it") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict | str) for row in rows):
        raise ConfigError(where, f"{str(path)!r} is not a list of texts or objects", 'write ["…", …]')
    return enumerate(({COLUMN: row} if isinstance(row, str) else row for row in rows), start=1)


def _folder(value: Any, info: ValidationInfo) -> Any:
    """A local folder as an absolute path; a URL as it is."""
    if not isinstance(value, str) or "://" not in value:
        return absolute(value, info)
    if holds_credentials(value):  # not shown
        raise unfit(f"{PROBLEM}; {IN_ENVIRONMENT}")
    if AllowedPaths.of(info) is not None:
        raise unfit("is an address, which the service does not open; send the prompts as a list")
    return str(value)


class PromptRunConfig(_SourceConfig):
    """The prompts of an earlier run: its initial prompt, and the best ones that it found."""

    run: Annotated[Path | str, BeforeValidator(_folder), LOCATION]
    """Folder of the run, or a URL such as ``s3://BUCKET/PATH``."""
    task: str | None = None
    """Task of that run. Default: the one with the same name as this task."""
    most: PositiveInt = 4
    """How many of its best prompts by ``val``, over all its seeds, besides its initial prompt."""


def prompt_kind(value: Any) -> str | None:
    """The tag of a value in the union of ``TaskConfig.prompt``; ``None`` for an unknown section."""
    if isinstance(value, list | tuple):
        return "a list of texts"
    kinds = (
        ("file", PromptFileConfig), ("run", PromptRunConfig), ("system", MessagesConfig), ("user", MessagesConfig)
    )  # fmt: skip
    option = option_of(value, kinds)
    if option is None:
        return None if isinstance(value, dict) else "a text"
    return f"a {option}" if option in ("file", "run") else "messages"


_PromptConfig = Annotated[
    Annotated[PromptText, Tag("a text")]
    | Annotated[MessagesConfig, Tag("messages")]
    | Annotated[PromptTexts, Tag("a list of texts")]
    | Annotated[PromptFileConfig, Tag("a file")]
    | Annotated[PromptRunConfig, Tag("a run")],
    Discriminator(
        prompt_kind,
        custom_error_type="prompt_kind",
        custom_error_message="is no prompt; write a text, a list, or a section with file, run, or system and user",
    ),
]
# A type alias, since a union with None needs members that can be hashed.
PromptConfig = TypeAliasType("PromptConfig", _PromptConfig)
"""What ``tasks[].prompt`` may be."""


def known_texts(
    prompt: str | tuple[str, ...] | MessagesConfig | PromptFileConfig | PromptRunConfig,
) -> tuple[str, ...] | None:
    """The prompts of an option, the initial one first; ``None`` if they have to be read."""
    if isinstance(prompt, str):
        return (prompt,)
    if isinstance(prompt, MessagesConfig):
        return (in_messages(prompt.system, prompt.user),)
    return prompt if isinstance(prompt, tuple) else prompt.prompts
