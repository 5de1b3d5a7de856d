"""The generated parts of the documentation.

A page asks for one with a line such as ``<!-- generate: commands -->``. The first word names a function in
``_GENERATORS``; a second one is its argument.
"""

from __future__ import annotations

import json
import os
import pkgutil
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_REQUEST = re.compile(r"^<!-- generate: (\w+) ?(\S*) -->$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#:\s]+\.\w+)(#[^)]*)?\)")


def fill_in(_app: Any, docname: str, source: list[str]) -> None:
    """Replace each request in a page's source; Sphinx calls this for every page."""
    source[0] = _REQUEST.sub(lambda found: _GENERATORS[found[1]](found[2], docname), source[0])


def configuration(_argument: str, _docname: str) -> str:
    """Every option of a configuration file, from its JSON schema, which is made from the pydantic models."""
    schema = json.loads((ROOT / "configs" / "schema.json").read_text(encoding="utf-8"))
    return "\n\n".join(_Options(schema["$defs"]).section("", schema))


class _Options:
    """Writes the sections of the configuration, each one once."""

    def __init__(self, definitions: dict[str, Any]) -> None:
        self._definitions = definitions
        self._written: dict[str, str] = {}

    def section(self, path: str, schema: dict[str, Any], variant: str = "") -> Iterator[str]:
        """One section as a heading and a table of its options, then the sections in it."""
        if path:
            yield f"{'###' if '.' in path else '##'} `{path}`{variant}"
            yield schema.get("description", "")
        rows, inner = [], []
        for name, option in schema["properties"].items():
            below = f"{path}.{name}" if path else name
            found = list(dict.fromkeys(self._sections(option)))
            inner += [(below, one, len(found) > 1) for one in found]
            links = ", ".join(dict.fromkeys(f"`{self._written.get(one, below)}`" for one in found))
            kind = f"section {links}" if found else self._type(option)
            if path or not found:
                rows.append((f"`{name}`", kind, _default(option, schema, name), option.get("description", "")))
        yield _table(("Option", "Type", "Default", "Meaning"), rows)
        for below, one, is_variant in inner:
            if one not in self._written:
                self._written[one] = below
                content = self._definitions.get(one) or json.loads(one)
                yield from self.section(below, content, _variant(content) if is_variant else "")

    def _sections(self, option: dict[str, Any]) -> Iterator[str]:
        """The definitions of the sections that an option, or each entry of a list, can hold."""
        if "properties" in option:
            yield json.dumps(option)
        name = option.get("$ref", "").rpartition("/")[2]
        if "properties" in self._definitions.get(name, {}):
            yield name
        elif name:
            yield from self._sections(self._definitions[name])
        for choice in (*option.get("anyOf", ()), *option.get("oneOf", ())):
            yield from self._sections(choice)
        if isinstance(option.get("items"), dict):
            yield from self._sections(option["items"])

    def _type(self, option: dict[str, Any]) -> str:
        option = {**self._definitions.get(option.get("$ref", "").rpartition("/")[2], {}), **option}
        if "enum" in option or "const" in option:
            return ", ".join(f"`{value}`" for value in option.get("enum", [option.get("const")]))
        choices = option.get("anyOf") or option.get("oneOf")
        if choices:
            return " or ".join(dict.fromkeys(self._type(one) for one in choices if one.get("type") != "null"))
        if option.get("type") == "array":
            return f"list of {self._type(option['items'])}" if "items" in option else "list"
        words = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}
        bounds = [text.format(option[word]) for word, text in words.items() if word in option]
        return " ".join([option.get("type", "value"), ", ".join(bounds)]).strip()


def _variant(section: dict[str, Any]) -> str:
    kind = section["properties"].get("kind", {})
    kinds = [kind["const"]] if "const" in kind else kind.get("enum", [])
    if "pattern" in kind:  # a function of the user
        kinds = ["module:function"]
    return " with " + (", ".join(f"`kind: {one}`" for one in kinds) or f"`{next(iter(section['properties']))}`")


def _default(option: dict[str, Any], section: dict[str, Any], name: str) -> str:
    if name in section.get("required", ()):
        return "required"
    default = option.get("default")
    return "" if default is None or isinstance(default, dict) else f"`{json.dumps(default, ensure_ascii=False)}`"


def commands(_argument: str, _docname: str) -> str:
    """Every command of ``gpo`` with its options, from the typer application."""
    from typer.main import get_command

    program: Any = get_command(import_module("cluster.cli.app").app)
    parts = ["## gpo", *_command("gpo", program)]
    for name, command in program.commands.items():
        parts += [f"## gpo {name}", *_command(f"gpo {name}", command)]
    return "\n\n".join(parts)


def _command(name: str, command: Any) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(command.context_class(command, info_name=name)))
    usage = re.sub(r"[{}]", "", usage)
    yield re.sub(r"(?m)^ +", "", command.help or "")
    yield f"```text\n{name} {usage}\n```"
    rows = []
    for option in command.params:
        if option.name == "help":
            continue
        shown = ", ".join(f"`{text}`" for text in (*option.opts, *option.secondary_opts))
        if option.param_type_name == "argument":
            shown = f"`{option.metavar or option.name.upper()}`"
        variable = f" Variable: `{option.envvar}`." if option.envvar else ""
        default = getattr(option, "show_default", None)
        default = default if isinstance(default, str) else option.default
        default = (
            "" if default is None or default is False or callable(default) else str(getattr(default, "value", default))
        )
        rows.append((shown, "" if "Sentinel" in default else default, (getattr(option, "help", "") or "") + variable))
    yield _table(("Option", "Default", "Meaning"), rows)


def metrics(_argument: str, _docname: str) -> str:
    """Every metric, from the catalogue."""
    catalogue = vars(import_module("actors.metrics.catalogue")).values()
    found = {one.name: one for one in catalogue if type(one).__name__ == "Metric"}
    rows = [
        (f"`{one.name}`", one.kind, ", ".join(f"`{label}`" for label in one.labels), one.help) for one in found.values()
    ]
    return _table(("Metric", "Type", "Labels", "Meaning"), rows)


def modules(package: str, _docname: str) -> str:
    """The public classes and functions of every module of a package, from their docstrings."""
    # The names in the package ``gpo`` itself are those of the page on the Python interface.
    members = {name: "" if name == "gpo" else "\n   :members:" for name in module_names(package)}
    return "\n\n".join(
        f"## {name}\n\n```{{eval-rst}}\n.. automodule:: {name}{option}\n```" for name, option in members.items()
    )


def module_names(package: str) -> list[str]:
    """The names of a package and of all modules in it."""
    path = import_module(package).__path__
    return [package, *(found.name for found in pkgutil.walk_packages(path, f"{package}."))]


def file(path: str, docname: str) -> str:
    """A Markdown file of the repository; its links are made to work from the page."""
    here = ROOT / "docs" / Path(docname).parent

    def relink(found: re.Match[str]) -> str:
        target = ((ROOT / path).parent / found[1]).resolve()
        target = _PAGES.get(str(target.relative_to(ROOT)), target)
        return f"]({os.path.relpath(target, here)}{found[2] or ''})"

    return _LINK.sub(relink, (ROOT / path).read_text(encoding="utf-8"))


_PAGES = {
    _REQUEST.search(page.read_text(encoding="utf-8"))[2]: page
    for page in (ROOT / "docs").rglob("*.md")
    if "<!-- generate: file" in page.read_text(encoding="utf-8")
}
"""The pages that hold a file of the repository, by its path there."""

_GENERATORS: dict[str, Callable[[str, str], str]] = {
    one.__name__: one for one in (configuration, commands, metrics, modules, file)
}


def _table(titles: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [titles, ("---",) * len(titles), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in line) + " |" for line in lines
    )
