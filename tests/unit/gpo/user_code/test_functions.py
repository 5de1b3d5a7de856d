from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from gpo.errors import EvaluationError, GPOError
from gpo.user_code.functions import FunctionReference, passed_functions
from gpo.user_code.modules import home_of

WriteModule = Callable[[str], str]


@pytest.mark.parametrize(
    ("source", "function", "said"),
    [
        (None, "metric", "there is no module 'own_"),
        (
            "import nowhere_to_be_found",
            "metric",
            "cannot be imported: ModuleNotFoundError: No module named 'nowhere_to",
        ),
        ("1 / 0", "metric", "cannot be imported: ZeroDivisionError: division by zero"),
        ("raise SystemExit", "metric", "cannot be imported: SystemExit"),
        ("def metric(:", "metric", "cannot be imported: SyntaxError"),
        ("def other(): ...", "metric", "'metric' is not defined in the module 'own_"),
        ("metric = 3", "metric", "'metric' is not a function in the module 'own_"),
    ],
)
def test_a_function_that_cannot_be_loaded_is_an_error(
    source: str | None, function: str, said: str, module: WriteModule, tmp_path: Path
) -> None:
    name = f"own_{uuid4().hex}" if source is None else module(source)
    with pytest.raises(EvaluationError) as caught:
        FunctionReference(name, function, (str(tmp_path),)).load()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_module_is_named() -> None:
    with pytest.raises(EvaluationError, match=r"there is no module 'nowhere_at_all\.metrics'"):
        FunctionReference("nowhere_at_all.metrics", "metric").load()


def test_a_module_finds_its_neighbours_even_when_called(module: WriteModule, tmp_path: Path) -> None:
    neighbour = module("def value():\n    return 0.5\n")
    name = module(f"def metric():\n    from {neighbour} import value\n    return value()\n")
    assert FunctionReference(name, "metric", (str(tmp_path),)).call() == 0.5


@pytest.mark.parametrize("name", ["json", "statistics", "numpy", "serve", "benchmarks"])
def test_the_folder_takes_precedence_over_installed_modules(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text(
        "import json, statistics\ndef own(): return json.dumps([1])\n", encoding="utf-8"
    )
    before = sys.modules.get(name)
    assert FunctionReference(name, "own", (str(tmp_path),)).call() == "[1]"
    assert sys.modules.get(name, before) is before
    assert str(tmp_path) not in sys.path


def test_modules_with_one_name_in_two_folders_and_their_neighbours_stay_separate(tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
        (folder / "near.py").write_text(f"NAME = {folder.name!r}", encoding="utf-8")
        (folder / "late.py").write_text("import near", encoding="utf-8")
        source = """
            import near
            from near import NAME
            def metric():
                import late
                return [near.NAME, NAME, late.near.NAME]
        """
        (folder / "metrics.py").write_text(textwrap.dedent(source), encoding="utf-8")
    first, second = (FunctionReference("metrics", "metric", (str(folder), str(tmp_path))) for folder in folders)
    for _ in range(2):
        assert first.call() == ["first"] * 3
        assert second.call() == ["second"] * 3
    assert "near" not in sys.modules
    assert first.load() is first.load()


@pytest.mark.parametrize("module", ["own_metrics", "gpo.errors"])
def test_the_library_is_not_imported_again_from_a_folder_with_its_source(module: str, tmp_path: Path) -> None:
    (tmp_path / "own_metrics.py").write_text("from gpo.errors import GPOError", encoding="utf-8")
    (tmp_path / "gpo").mkdir()
    for name in ("__init__", "errors"):
        (tmp_path / f"gpo/{name}.py").write_text("class GPOError: ...", encoding="utf-8")
    assert FunctionReference(module, "GPOError", (str(tmp_path),)).load() is GPOError


def test_a_module_comes_from_the_first_folder_that_has_it_and_finds_neighbours_in_the_others(tmp_path: Path) -> None:
    for folder in ("config", "working", "config/own_pack"):
        (tmp_path / folder).mkdir()
    (tmp_path / "working/own_metrics.py").write_text("import own_near\ndef metric(): return own_near.VALUE")
    (tmp_path / "config/own_near.py").write_text("VALUE = 0.5", encoding="utf-8")
    folders = (str(tmp_path / "config"), str(tmp_path / "working"))
    assert FunctionReference("own_metrics", "metric", folders).call() == 0.5
    assert home_of("own_metrics", folders) == folders[1]
    assert home_of("own_pack", folders) is None


def test_a_module_in_a_package_is_found(tmp_path: Path) -> None:
    package = tmp_path / "own_package"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("VALUE = 0.25", encoding="utf-8")
    (package / "inner/__init__.py").touch()
    (package / "other.py").write_text("VALUE = 0.5", encoding="utf-8")
    source = """
        import own_package.other
        import own_package.other as other
        from own_package import VALUE, other as again
        from .. import other as near
        from ..other import VALUE as HALF
        def metric(): return [own_package.other.VALUE, other.VALUE, VALUE, again.VALUE, near.VALUE, HALF]
    """
    (package / "inner/metrics.py").write_text(textwrap.dedent(source), encoding="utf-8")
    reference = FunctionReference("own_package.inner.metrics", "metric", (str(tmp_path),))
    assert reference.call() == [0.5, 0.5, 0.25, 0.5, 0.5, 0.5]
    assert home_of("own_package.inner.metrics", (str(tmp_path),)) == str(tmp_path)
    with pytest.raises(
        EvaluationError, match=r"there is no module 'own_package\.gone' in '/.*' or on Python's search path"
    ):
        FunctionReference("own_package.gone", "metric", (str(tmp_path),)).load()


def made(text: str) -> Callable[..., Any]:
    scope: dict[str, Any] = {}
    exec(text, scope)  # noqa: S102
    return scope["f"]  # type: ignore[no-any-return]


def closing_over(value: object) -> Callable[..., Any]:
    return lambda: value


class Weighted:
    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self) -> float:
        return self.weight


def digest(function: Callable[..., Any]) -> str:
    with passed_functions({"__main__:f": function}):
        return FunctionReference("__main__", "f").digest()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (made("def f(): return 1"), made("def f(): return 2")),
        (closing_over(0.25), closing_over(0.75)),
        (Weighted(0.25), Weighted(0.75)),
        (partial(round, ndigits=1), partial(round, ndigits=2)),
        (lambda a=1: a, lambda a=2: a),
    ],
)
def test_a_digest_changes_with_whatever_decides_the_value(one: Callable[..., Any], other: Callable[..., Any]) -> None:
    assert digest(one) == digest(one)
    assert digest(one) != digest(other)


def test_a_digest_does_not_change_with_notes_that_a_function_keeps() -> None:
    notes: list[int] = []
    before = digest(closing_over(notes))
    notes.append(1)
    assert digest(closing_over(notes)) == before
