"""The embedded model: llama.cpp's own OpenAI-compatible server.

A run holds it in a Ray actor rather than a Serve deployment: the server brings its own HTTP front and
its own batching, so a Serve proxy before it would only add a hop to every call. What is left to do is to start it, to
notice that it died, to start it again at the same address and to end it with the run: what Ray does for an actor.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpo.errors import ConfigError
from serve.gguf_weights import as_q8_0, default_weights, weights_id

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class EmbeddedModelSpec:
    """What to serve, and how.

    Attributes:
        gguf: the weights; ``None`` is the default model.
        parallel: requests decoded together, ≥ 1.
        context: tokens for each of them.
        threads: CPU threads; ``None`` is one per core.
    """

    gguf: Path | None
    parallel: int
    context: int
    threads: int | None

    @property
    def name(self) -> str:
        """What the model is called in requests and messages."""
        return (self.gguf or default_weights()).stem

    @property
    def identity(self) -> dict[str, Any]:
        """What tells its replies from those of other models: not the port, which is another one in every run.

        Raises:
            OSError: the weights cannot be looked at.
        """
        return {"weights": weights_id(self.gguf or default_weights()), "context": self.context}

    def check(self, where: str) -> None:
        """Refuse weights that are not there or are no GGUF file.

        Raises:
            ConfigError: naming the setting ``where``.
        """
        if self.gguf is None:
            return
        try:
            with self.gguf.open("rb") as file:
                magic = file.read(4)
        except OSError as error:
            raise ConfigError(
                where, f"{str(self.gguf)!r} cannot be read ({error.strerror})", "name a .gguf file"
            ) from None
        if magic != b"GGUF":
            raise ConfigError(where, f"{str(self.gguf)!r} is not a GGUF file", "name a .gguf file")


class EmbeddedModelServer:
    """A llama.cpp server in this process; it serves as long as the object lives.

    Args:
        spec: what to serve.
        port: where to listen on the loopback interface.
    """

    def __init__(self, spec: EmbeddedModelSpec, port: int) -> None:
        # Read when the library is loaded. Without it, threads that wait for work spin, and on a machine that is busy
        # with anything else decoding becomes ten times slower.
        os.environ["OMP_WAIT_POLICY"] = "passive"
        import xllamacpp

        weights = as_q8_0(default_weights()) if spec.gguf is None else spec.gguf
        threads = spec.threads or os.cpu_count() or 1
        params: Any = xllamacpp.CommonParams()
        params.model.path = str(weights)
        params.hostnames = [HOST]
        params.port = port
        params.n_parallel = spec.parallel
        params.n_ctx = spec.parallel * spec.context
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        params.cache_ram_mib = 0  # prompts are cached per slot; a second cache in memory is not worth its gigabytes
        params.ui = False
        params.verbosity = 0
        self._server: Any = xllamacpp.Server(params)

    def base_url(self) -> str:
        """Where the server listens, up to and including ``/v1``."""
        return f"{self._server.listening_address}/v1"


def free_port() -> int:
    """A port that nobody listens on; chosen before the server, so that one started again comes back to it."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
