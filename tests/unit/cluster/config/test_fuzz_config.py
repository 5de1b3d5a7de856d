"""Any configuration is taken, or refused by name. GPO_FUZZ_EXAMPLES says how long to try."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.config import load_config
from cluster.config.comparison import load_comparison
from cluster.config.loading import dump
from cluster.config.run import RunConfig
from gpo.errors import ConfigError
from tests.paths import ROOT

EXAMPLES = int(os.environ.get("GPO_FUZZ_EXAMPLES", "20"))
FILES = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if "methods" not in path.parts)
TEXTS = [path.read_text(encoding="utf-8") for path in FILES]
QUICKSTART = (ROOT / "configs" / "quickstart.yaml").read_text(encoding="utf-8")
CANARY = "sk-canary-19ab77"

fuzzed = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))

_WORDS = ["", "openai", "embedded", "~nobody/x", "\0", "a:b", "module:function", "http://x/v1", "1e9", "..", "kind"]
_OPTIONS = ["kind", "api_key_env", "base_url", "extra", "steps", "extends", "compare", *sorted(RunConfig.model_fields)]
_PIECES = (
    "models¦tasks¦extends¦:¦: ¦- ¦\n¦  ¦\t¦&a ¦*a¦<<: ¦{¦}¦[¦]¦'¦\"¦|¦>¦# ¦? ¦---\n¦...\n¦%YAML 1.1\n¦0x¦1_000¦.nan¦~¦"
    "12:30¦!!int ¦!!bool x¦!!timestamp ¦!!python/object/apply:os.system [id]¦!!set ¦!!omap ¦!!float ¦2001-99-99"
)
pieces = st.sampled_from(_PIECES.split("¦"))
words = st.text(max_size=20) | st.sampled_from(_WORDS)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | st.binary(max_size=5) | words
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(scalars, inner, max_size=4),
    max_leaves=8,
)


def refusal(load: Callable[[], object]) -> ConfigError | None:
    try:
        load()
    except ConfigError as error:
        return error
    return None


def is_taken(folder: Path, content: bytes, overrides: Sequence[str] = ()) -> bool:
    """Whether a configuration is taken; else it is refused as it should be."""
    path = folder / "config.yaml"
    path.write_bytes(content)
    error = refusal(lambda: dump(load_config(path, overrides)))
    if error is not None:
        assert all((error.field, error.problem, error.remedy))
        assert "\n" not in error.field
    return error is None


def as_yaml(document: Any) -> bytes:
    return yaml.safe_dump(document, allow_unicode=True).encode(errors="surrogatepass")


@fuzzed
@given(content=st.binary(max_size=100) | st.text(max_size=100).map(lambda text: text.encode(errors="surrogatepass")))
def test_any_bytes(content: bytes, tmp_path: Path) -> None:
    assert not is_taken(tmp_path, content)


@fuzzed
@given(text=st.lists(pieces, max_size=30).map("".join))
def test_any_pieces_of_yaml(text: str, tmp_path: Path) -> None:
    assert not is_taken(tmp_path, text.encode())


@fuzzed
@given(document=st.dictionaries(st.sampled_from(_OPTIONS), values))
def test_any_sections(document: dict[str, Any], tmp_path: Path) -> None:
    assert not is_taken(tmp_path, as_yaml(document))


@st.composite
def mutations(draw: st.DrawFn) -> Any:
    """A real configuration with a few places replaced, taken out or added."""
    document = yaml.safe_load(draw(st.sampled_from(TEXTS)))
    for _ in range(draw(st.integers(1, 3))):
        place, keys = document, _keys(document)
        while keys:
            key = draw(st.sampled_from(keys))
            if _keys(place[key]) and draw(st.integers(0, 3)):
                place, keys = place[key], _keys(place[key])
                continue
            match draw(st.sampled_from(["replace", "drop", "add"])):
                case "drop":
                    del place[key]
                case "add" if isinstance(place, dict):
                    place[draw(st.sampled_from(_OPTIONS) | scalars)] = draw(values)
                case _:
                    place[key] = draw(values)
            break
    return document


def _keys(place: Any) -> list[Any]:
    if isinstance(place, dict):
        return sorted(place, key=str)
    return list(range(len(place))) if isinstance(place, list) else []


@settings(fuzzed, max_examples=2 * EXAMPLES)
@given(document=mutations())
def test_any_mutation_of_a_configuration(document: Any, tmp_path: Path) -> None:
    is_taken(tmp_path, as_yaml(document))


@fuzzed
@given(document=mutations())
def test_any_mutation_of_a_comparison(document: Any, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(as_yaml(document))
    error = refusal(lambda: load_comparison(path, [], []))
    assert error is None or str(error)


_NAMES = ["optimizer.steps", "tasks.0.prompt", "models.task", "run", "a.b", "tasks[0]", "tasks.9", "", "..", "compare"]
names = st.sampled_from(_NAMES) | st.text(max_size=8)


@fuzzed
@given(overrides=st.lists(st.tuples(names, st.text(max_size=12) | pieces).map("=".join), max_size=3))
def test_any_overrides(overrides: list[str], tmp_path: Path) -> None:
    is_taken(tmp_path, QUICKSTART.encode(), overrides)


@pytest.mark.parametrize("name", ["api_key", "api_key_env", "api_key_file", "base_url", "key"])
@pytest.mark.parametrize(
    "value",
    [f"http://user:{CANARY}@x/v1", CANARY, f"http://x/v1?key={CANARY}", [CANARY], {CANARY: CANARY}],
    ids=range(5),
)
def test_a_key_in_a_configuration_is_not_shown(name: str, value: Any, tmp_path: Path) -> None:
    document = yaml.safe_load(QUICKSTART)
    document["models"]["task"] = {"kind": "openai", "model": "m", name: value}
    path = tmp_path / "config.yaml"
    path.write_bytes(as_yaml(document))
    error = refusal(lambda: load_config(path))
    assert error is not None or name == "api_key_file"  # any file may be called so
    assert CANARY not in str(error)


def bomb(levels: int, width: int) -> str:
    lines = [f"a0: &a0 [{', '.join(['x'] * width)}]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (bomb(12, 10), "more than 200,000 values"),
        ("x: &a [*a]", "within itself"),
        ("x: &a {y: *a}", "within itself"),
        ("x: " + "[" * 200 + "]" * 200, "nested more than 100 deep"),
        ("x: " + "[" * 3_000, "nested more than 100 deep"),
        ("x: " + "{a: " * 3_000, "nested more than 100 deep"),
        ("x: y" * 3_000_000, "more than 10,000,000 characters"),
        ("x: !!python/object/apply:os.system [id]", "not valid YAML"),
        ("x: !!bool maybe", "not valid YAML"),
        ("x: !!float", "not valid YAML"),
        ("x: !!int []", "not valid YAML"),
        ("run:\n  steps: 1\n  seeds: [0]\n  steps: 1\n", r"line 4: the key 'steps' is already in line 2"),
        ("run: {a: 1}\nmodels:\nrun:\n", r"line 3: the key 'run' is already in line 1"),
        ("- {a: 1, 'a': 2}", r"line 1: the key 'a' is already in line 1"),
    ],
    ids=lambda value: value[:12],
)
def test_yaml_that_would_fill_the_memory_or_run_something_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        load_config(path)
