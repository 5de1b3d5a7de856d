"""The documentation site builds without a warning, needs no other host, and documents everything."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.cli.app import app
from tests.paths import ROOT

PAGES = [ROOT / name for name in ("README.md", "DESIGN.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").rglob("*.md"))
FOLDERS = ("gpo", "actors", "serve", "cluster", "configs", "benchmarks", "k8s", "tests", "docs")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as ``make docs`` builds it: a broken link or anchor is a warning, and a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "docs", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert built.returncode == 0, built.stderr
    return folder


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    loading = re.compile(r"""<(?:script|img|iframe|source|link)\b[^>]*?(?:src|href)=["']?(?:https?:)?//[^>]*>""")
    for page in site.rglob("*.html"):
        assert not loading.findall(page.read_text(encoding="utf-8")), page
    for style in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_the_reference_holds_every_command_section_and_metric(site: Path) -> None:
    def page(name: str) -> str:
        return (site / "reference" / f"{name}.html").read_text(encoding="utf-8")

    commands = [info.name or info.callback.__name__ for info in app.registered_commands if info.callback]
    sections = json.loads((ROOT / "configs" / "schema.json").read_text(encoding="utf-8"))["properties"]
    rules = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "k8s" / "monitoring").rglob("*.yaml"))

    assert all(f'id="gpo-{command}"' in page("commands") for command in commands)
    assert all(f">{section}</span>" in page("configuration") for section in sections)
    used = set(re.findall(r"\bgpo_\w+?(?=_bucket|_sum|_count|\b)", rules)) - set(re.findall(r"record: (\w+)", rules))
    assert used
    assert all(f">{metric}</span>" in page("metrics") for metric in used)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_that_a_page_names_exist(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    named = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./*-]*)`", text)
    missing = [path for path in named if not list(ROOT.glob(path.rstrip("/")))]
    assert not missing


@pytest.mark.parametrize("page", ["README.md", "DESIGN.md", "CONTRIBUTING.md", "configs/README.md"])
def test_links_outside_the_site_lead_to_files(page: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text(encoding="utf-8"))
    missing = [one for one in targets if "://" not in one and not ((ROOT / page).parent / one).exists()]
    assert not missing
