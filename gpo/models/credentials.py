"""API keys and extra headers: where they come from. Only the process that sends requests reads them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gpo.errors import ConfigError
from gpo.user_code.environment import own_environment, variable

NO_KEY = "no-key"
"""Sent if no key is configured: local servers need none, but the client requires one."""

_COMMAND_TIMEOUT_S = 30.0
_SECRET_NAME = re.compile(r"auth|key|token|secret|passw|cookie|credential|signature|^sig$", re.IGNORECASE)


def names_a_secret(name: str) -> bool:
    """Whether a header or query parameter of this name usually carries a key."""
    return bool(_SECRET_NAME.search(name))


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where the API key is.

    Attributes:
        env: name of an environment variable.
        file: path of a file that contains only the key; takes precedence over ``env``.
        required: whether an unset variable is an error, rather than a server that needs no key.
        command: program and arguments; it prints the key, and takes precedence over ``file``.
    """

    env: str | None = "OPENAI_API_KEY"
    file: str | None = None
    required: bool = False
    command: tuple[str, ...] = ()

    @property
    def option(self) -> str:
        """The option of the configuration that names the source."""
        return "api_key_command" if self.command else "api_key_file" if self.file else "api_key_env"

    @property
    def location(self) -> str:
        """Where the key is, for messages; different for different sources."""
        if self.command:
            return f"the output of {self.command[0]!r}"
        return self.file or f"the environment variable {self.env}"

    def read(self) -> str:
        """The key, or a placeholder if there is none and none is required.

        Raises:
            ConfigError: the file cannot be read or is empty, the command fails, a required variable is not set, or the
                content cannot be a key. The message never contains the content.
        """
        if self.command:
            return self._checked(self._from_command(), f"the output of {self.command[0]!r}")
        if self.file:
            return self._checked(self._from_file(self.file), f"the content of {self.file!r}")
        key = variable(self.env).strip() if self.env else ""
        if not key and self.required:
            raise _unset(self.option, str(self.env))
        return self._checked(key or NO_KEY, f"the content of environment variable {self.env}")

    @staticmethod
    def _from_file(file: str) -> str:
        try:
            key = Path(file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
            raise ConfigError("api_key_file", f"{file!r} cannot be read ({reason})", "name a readable file") from None
        if not key:
            raise ConfigError("api_key_file", f"{file!r} is empty", "put the key into it")
        return key

    def _from_command(self) -> str:
        """What the command prints. Its output, errors included, is never shown, since it may contain the key."""
        name, run_it = self.command[0], "run it in a shell, and correct it until it prints the key alone"

        def failed(problem: str, remedy: str = run_it) -> ConfigError:
            return ConfigError("api_key_command", f"{name!r} {problem}", remedy)

        try:
            process = subprocess.Popen(  # noqa: S603  # the user's own command, without a shell
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=own_environment(),
                start_new_session=True,  # so that the time limit ends its children, too
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it contains a NUL character"
            raise failed(f"cannot be run ({reason})", "name a program, and each argument as an entry") from None
        try:
            printed, _ = process.communicate(timeout=_COMMAND_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise failed(f"does not end within {_COMMAND_TIMEOUT_S:g} s") from None
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode:
            raise failed(f"failed with exit code {process.returncode}")
        key = printed.decode("utf-8", errors="replace").strip()
        if not key:
            raise failed("printed no key")
        return key

    def _checked(self, key: str, what: str) -> str:
        # A key is sent in an HTTP header. If it does not fit there, the client's error would quote it.
        if key[0] == key[-1] and key[0] in "\"'`":
            raise ConfigError(self.option, f"{what} is in quotation marks", "remove them")
        if not all("!" <= character <= "~" for character in key):
            raise ConfigError(
                self.option, f"{what} has characters that no key has", "put the key there, and nothing else"
            )
        return key


@dataclass(frozen=True, slots=True)
class Header:
    """An extra header of every request.

    Attributes:
        name: of the header.
        value: sent as it is, unless ``env`` is given.
        env: name of the environment variable that holds the value, which is kept secret like a key.
    """

    name: str
    value: str = ""
    env: str | None = None

    def read(self) -> str:
        """The value to send.

        Raises:
            ConfigError: the variable is not set, or its content does not fit into a header. The message never contains
                the content.
        """
        if self.env is None:
            return self.value
        field, value = f"headers.{self.name}", variable(self.env).strip()
        if not value:
            raise _unset(field, self.env)
        if not fits_header(value):
            problem = f"the content of environment variable {self.env} does not fit into a header"
            raise ConfigError(field, problem, "use printable ASCII characters in one line")
        return value


def fits_header(value: str) -> bool:
    """Whether a text can be the value of a header: printable ASCII in one line."""
    return all(" " <= character <= "~" for character in value)


def _unset(field: str, name: str) -> ConfigError:
    remedy = f"export {name}=… (on a cluster, for every node's processes)"
    return ConfigError(field, f"environment variable {name} is not set", remedy)
