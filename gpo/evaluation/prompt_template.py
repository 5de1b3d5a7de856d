"""Prompts that are templates: text with placeholders of the data's columns, in one message or in two.

A placeholder is a Jinja expression between double braces, such as ``{{ ticket }}``. Each is evaluated once for each
example, when the data is read (``gpo/data/files.py``). A prompt is then filled in by looking up its placeholders, so
that neither a prompt of the optimizer model nor a value of the data is ever evaluated.

The headings ``[[system]]`` and ``[[user]]`` divide a prompt into two messages. Without headings, it is one message of
the user.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from gpo.data.template import Template
from gpo.errors import ConfigError
from gpo.models.protocol import Message
from gpo.prompt import ATOM, HEADING, PLACEHOLDER, Prompt, parts_of, placeholder
from gpo.text import without_controls

_STATEMENTS = {"{%": "a statement {% … %}", "{#": "a comment {# … #}"}
_SHOWN = 60
_INSTRUCTION_WORDS = 3
_ATOM = re.compile(f"({ATOM})")


def in_messages(system: str, user: str) -> str:
    """The text of a prompt with a system message and a message of the user."""
    return f"[[system]]\n{system.strip()}\n\n[[user]]\n{user.strip()}"


def placeholders(text: str) -> tuple[str, ...]:
    """The placeholders of a prompt in order, with repeats, each as ``{{ expression }}``."""
    return tuple(placeholder(found[1]) for found in PLACEHOLDER.finditer(text))


def headings(text: str) -> tuple[str, ...]:
    """The headings of a prompt in order: ``[[system]]``, ``[[user]]``, or none."""
    return tuple(found[0] for found in HEADING.finditer(text))


def filled_messages(text: str, texts: Mapping[str, str]) -> list[Message]:
    """The messages of a prompt, with the texts that its placeholders stand for.

    Args:
        texts: by placeholder, as ``placeholders`` writes it.

    Raises:
        KeyError: there is no text for a placeholder.
        ValueError: the headings are others than ``form_problem`` allows.
    """

    def filled(content: str) -> str:
        return PLACEHOLDER.sub(lambda found: texts[placeholder(found[1])], content.strip())

    if not headings(text):
        return [{"role": "user", "content": filled(text)}]
    # Divided before it is filled in, so that a text of the data that looks like a heading begins no message.
    _, _, system, _, user = HEADING.split(text)
    return [{"role": "system", "content": filled(system)}, {"role": "user", "content": filled(user)}]


def with_instruction(text: str, instruction: str) -> str:
    """A prompt on one line, with its instruction replaced: an example of a prompt with the same placeholders.

    The last text of at least three words between placeholders and headings counts as the instruction, or else the
    longest one.
    """
    pieces = _ATOM.split(text)
    between = range(0, len(pieces), 2)
    lengths = {index: len(pieces[index].split()) for index in between}
    long = [index for index in between if lengths[index] >= _INSTRUCTION_WORDS]
    pieces[long[-1] if long else max(between, key=lengths.__getitem__)] = f" {instruction} "
    return " ".join("".join(pieces).split())


def form_problem(text: str) -> str | None:
    """Why a text is not a template, in words such as ``contains a statement {% … %}``; ``None`` if it is one.

    Single braces are text, and so are the closing braces of nested JSON objects.
    """
    rest = PLACEHOLDER.sub(" ", text)
    for sign, name in _STATEMENTS.items():
        if sign in rest:
            return f"contains {name}; only placeholders {{{{ … }}}} are possible"
    if "{{" in rest or ("}}" in rest and rest.count("}") > rest.count("{")):
        return "contains double braces that are not a placeholder {{ … }} on one line, without braces inside"
    if any(found[1][:1] in "-+" or found[1][-1:] in "-+" for found in PLACEHOLDER.finditer(text) if found[1]):
        return "contains {{- or -}}; white space around placeholders is always kept"
    if not headings(text):
        return None if text.strip() else "is empty"
    if headings(text) != ("[[system]]", "[[user]]"):
        return f"has the headings {' '.join(headings(text))}; possible are none, and [[system]] followed by [[user]]"
    before, _, system, _, user = HEADING.split(text)
    if before.strip():
        return "has text before [[system]]"
    for heading, content in zip(headings(text), (system, user), strict=True):
        if not content.strip():
            return f"has an empty message {heading}"
    return None


def initial_problem(text: str) -> str | None:
    """Why a text cannot be the initial prompt of a task whose prompt is a template; ``None`` if it can."""
    problem = form_problem(text)
    if problem is not None:
        return problem
    found = placeholders(text)
    try:
        columns = [Template(one, one).variables for one in found]
    except ConfigError as error:
        return f"{error.field} {error.problem}"
    if not any(columns):
        return "contains no placeholder of a column, such as {{ input }}"
    return None


def template_problem(initial: Prompt, new: Prompt) -> str | None:
    """Why a new prompt cannot take the place of the initial one: in words that follow "the prompt", else ``None``.

    It must have the placeholders of the initial prompt, each as often, in any order, and the same headings. Text that
    Jinja would interpret otherwise is not allowed.
    """
    problem = form_problem(new.text)
    if problem is not None:
        return problem
    if headings(new.text) != headings(initial.text):
        wanted, found = (" ".join(headings(prompt.text)) or "none" for prompt in (initial, new))
        return f"has other headings than the initial prompt: {found} instead of {wanted}"
    wanted_counts, counts = Counter(placeholders(initial.text)), Counter(placeholders(new.text))
    for one in wanted_counts | counts:
        if counts[one] != wanted_counts[one]:
            shown = without_controls(one if len(one) <= _SHOWN else f"{one[:_SHOWN]}…")
            return f"contains {shown} {_times(counts[one])}, the initial prompt {_times(wanted_counts[one])}"
    return None


def lost_placeholders(initial: Prompt, new: Prompt) -> str | None:
    """Why a new prompt of a program cannot take the place of the initial one; ``None`` if it can.

    The program fills in the placeholders of its prompts itself. Each prompt whose initial text is a template keeps its
    placeholders; see ``template_problem``. In all other prompts, double braces are text.
    """
    texts = parts_of(new.text)
    for name, text in (parts_of(initial.text) or {"": initial.text}).items():
        if placeholders(text) and form_problem(text) is None:
            problem = template_problem(Prompt(text), Prompt(texts.get(name, "") if name else new.text))
            if problem is not None:
                return f"{problem}, in [[{name}]]" if name else problem
    return None


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times" if count else "not at all"
