"""The embedded model: its weights, its server, one reply."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from gpo.errors import ConfigError
from gpo.models.endpoint import Endpoint
from gpo.models.openai import openai_model
from gpo.models.protocol import Sampling
from serve import embedded_model
from serve.embedded_model import HOST, EmbeddedModelSpec, as_q8_0, default_weights, free_port
from tests.paths import ROOT

SPEC = EmbeddedModelSpec(gguf=None, parallel=2, context=512, threads=None)
_SERVE = """
import sys
from serve.embedded_model import EmbeddedModelServer, EmbeddedModelSpec
server = EmbeddedModelServer(EmbeddedModelSpec(None, 2, 512, None), int(sys.argv[1]))
print(server.base_url(), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    # In a separate process, since the server's threads live as long as their process.
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(port)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        announced = server.stdout.readline().strip()
        assert announced == f"http://{HOST}:{port}/v1"
        deadline = time.monotonic() + 60
        while not _answers(f"http://{HOST}:{port}/health"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield announced
    finally:
        server.kill()
        server.communicate()


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as reply:  # noqa: S310
            return bool(reply.status == 200)
    except (URLError, OSError):
        return False


async def test_replies_with_text_and_usage(base_url: str) -> None:
    endpoint = Endpoint(base_url, SPEC.name, max_concurrency=2)
    model = openai_model(endpoint)
    async with endpoint.client:
        reply = await model.complete(
            [{"role": "user", "content": "What is the capital of France?"}], Sampling(temperature=0.0, max_tokens=12)
        )
    assert reply.text.strip()
    assert reply.usage.requests == 1
    assert 5 < reply.usage.prompt_tokens < 100
    assert 0 < reply.usage.completion_tokens <= 12


def test_the_weights_are_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[Path] = []

    def encode(source: Path, target: Path) -> None:
        encoded.append(source)
        target.write_bytes(b"GGUF")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded_model, "_encode", encode)
    source = tmp_path / "model.gguf"
    source.write_bytes(b"GGUF 4 bits")
    target = as_q8_0(source)
    assert as_q8_0(source) == target
    assert encoded == [source]
    assert target.parent == tmp_path / "cache" / "gpo"
    assert list(target.parent.iterdir()) == [target]

    source.write_bytes(b"GGUF of another model")
    assert as_q8_0(source) != target
    assert len(encoded) == 2


def test_a_failed_encoding_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(source: Path, target: Path) -> None:
        target.write_bytes(b"GG")
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(embedded_model, "_encode", half)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with pytest.raises(ConfigError, match="No space left"):
        as_q8_0(default_weights())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_default_weights_are_installed_with_the_program() -> None:
    assert default_weights().read_bytes()[:4] == b"GGUF"
    SPEC.check("models.task.gguf")


@pytest.mark.parametrize(("content", "problem"), [(b"PK\x03\x04", "is not a GGUF file"), (None, "cannot be read")])
def test_a_file_that_is_not_gguf_is_refused(content: bytes | None, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        EmbeddedModelSpec(path, 1, 512, None).check("models.task.gguf")
    assert caught.value.field == "models.task.gguf"
    assert str(path) in caught.value.problem
    assert problem in caught.value.problem


@pytest.fixture
def encoding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A small file of weights, whose encoding takes no time; temporary files go to ``tmp``."""
    monkeypatch.setattr(embedded_model, "_encode", lambda _, target: target.write_bytes(b"GGUF"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "model.gguf").write_bytes(b"GGUF 4 bits")
    return tmp_path / "model.gguf"


def test_weights_go_to_a_temporary_folder_where_the_cache_cannot_be_written(
    encoding: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    target = as_q8_0(encoding)
    assert target.parent == tmp_path / "tmp" / f"gpo-{os.getuid()}"
    assert target.parent.stat().st_mode & 0o777 == 0o700
    assert as_q8_0(encoding) == target


def test_weights_go_to_a_temporary_folder_for_a_user_without_home(
    encoding: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", no_home)
    assert as_q8_0(encoding).parent == tmp_path / "tmp" / f"gpo-{os.getuid()}"


def test_a_temporary_folder_that_others_can_write_is_not_used(
    encoding: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    folder = tmp_path / "tmp" / f"gpo-{os.getuid()}"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match="not this user's alone") as caught:
        as_q8_0(encoding)
    assert caught.value.field == "/proc/none/gpo"
