from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

import pytest

from cluster.session.deployments import silence_serve
from cluster.session.ray_environment import is_private, prepare_environment
from gpo.errors import ConfigError


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restores what ``prepare_environment`` sets."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    os.environ.pop("RAY_TMPDIR", None)
    os.environ.pop("TMPDIR", None)
    os.environ["RAY_AUTH_MODE"] = "token"


@pytest.mark.parametrize("address", ["local", "auto", "127.0.0.1:6379"])
def test_uv_run_never_makes_ray_ship_the_working_folder(address: str) -> None:
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "1"
    prepare_environment(address)
    assert os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] == "0"


def test_a_usable_temporary_folder_is_left_to_ray() -> None:
    prepare_environment("local")
    os.environ["TMPDIR"] = "/var/tmp"  # noqa: S108
    prepare_environment("local")
    assert "RAY_TMPDIR" not in os.environ


@pytest.mark.parametrize("length", [40, 60, 200])
def test_ray_uses_a_short_folder_where_tmpdir_is_too_long_for_its_sockets(length: int, tmp_path: Path) -> None:
    folder = Path("/tmp") / ("x" * (length - len("/tmp/")))  # noqa: S108
    os.environ["TMPDIR"] = str(folder)
    prepare_environment("local")
    assert os.environ["RAY_TMPDIR"] == "/tmp"  # noqa: S108
    assert not folder.exists()


@pytest.mark.parametrize("folder", ["/proc/none", "relative", "/dev/null"])
def test_ray_uses_another_folder_where_tmpdir_cannot_be_written(folder: str) -> None:
    os.environ["TMPDIR"] = folder
    prepare_environment("local")
    assert os.environ["RAY_TMPDIR"] == "/tmp"  # noqa: S108


@pytest.mark.parametrize(
    ("folder", "problem"),
    [
        ("/tmp/" + "x" * 60, "bytes too long for Ray's sockets"),  # noqa: S108
        ("/proc/none", "cannot be written"),
        ("relative", "is not an absolute path"),
    ],
)
def test_an_unusable_folder_that_is_named_for_ray_is_refused(folder: str, problem: str) -> None:
    os.environ["RAY_TMPDIR"] = folder
    with pytest.raises(ConfigError, match=problem) as caught:
        prepare_environment("local")
    assert caught.value.field == "RAY_TMPDIR"


def test_a_cluster_is_private_only_with_a_token_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    del os.environ["RAY_AUTH_MODE"]
    prepare_environment("local")
    assert is_private()
    foreign = tmp_path / "gpo-ray-theirs" / "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(foreign)
    assert not is_private()
    del os.environ["RAY_AUTH_TOKEN_PATH"]
    assert not is_private()


def test_no_line_of_serve_below_an_error_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("ray.serve")
    before = logger.level
    silence_serve()
    try:
        logger.setLevel(logging.INFO)  # as Serve does while it starts
        logger.info('Started Serve in namespace "serve".')
    finally:
        logger.setLevel(before)
    assert capfd.readouterr() == ("", "")
