"""Runs as jobs on a Ray cluster, through its Jobs API."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import aiohttp

from cluster.config.secrets import refuse_credentials
from cluster.submitting.package import Package
from gpo.errors import ClusterError, ConfigError
from gpo.text import first_line

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails
    from ray.job_submission import JobSubmissionClient

_T = TypeVar("_T")
DEFAULT_ADDRESS = "http://127.0.0.1:8265"
RUN_ID = "gpo_run_id"
"""Metadata of a job: the ID of its run."""
_ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_POLL_S = 1.0
_PATIENCE_S = 60.0
"""Seconds for which a cluster may be unreachable while this process waits for a job."""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What a job runs.

    Attributes:
        command: of ``gpo``: ``run`` or ``sweep``.
        config: path of the configuration on the cluster.
        overrides: ``--set`` options.
        run_id: of the run; its first job has the same ID.
        run_dir: the run's folder, which all nodes can reach.
        options: further options of the command.
    """

    command: str
    config: str
    overrides: Sequence[str]
    run_id: str
    run_dir: str
    options: Sequence[str] = ()

    @property
    def entrypoint(self) -> str:
        """The command line; it starts the run, or resumes it."""
        return shlex.join(["python", "-m", "cluster.cli", self.command, self.config, *self._options])

    @property
    def _options(self) -> list[str]:
        options = [part for override in self.overrides for part in ("--set", override)]
        options += ["--run-id", self.run_id] if self.command == "run" else []
        return [*options, "--run-dir", self.run_dir, *self.options, "--resume"]


def require_reachable(field: str, location: str) -> None:
    """Refuse a folder below a job's working directory, which is deleted with the job.

    Raises:
        ConfigError: the location is relative.
    """
    if "://" not in location and not Path(location).is_absolute():
        raise ConfigError(
            field,
            f"{location!r} is relative, and would be lost with the job's working directory",
            "name an absolute path that all nodes can reach, or an fsspec URL such as s3://bucket/runs",
        )


class Jobs:
    """The Jobs API of a cluster.

    Args:
        address: of the cluster's dashboard, ``http(s)://HOST:PORT``. Default: ``RAY_API_SERVER_ADDRESS``, or a
            ``RAY_ADDRESS`` of this form, or else this machine.

    Raises:
        ConfigError: the address cannot be used, nothing answers there, or the token is refused.
    """

    def __init__(self, address: str | None) -> None:
        self.address = _resolved(address)
        _prepare_environment()
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient

        for chatty in ("dashboard_sdk", "job.sdk"):  # they log every upload and the end of every stream
            logging.getLogger(f"ray.dashboard.modules.{chatty}").setLevel(logging.WARNING)
        try:
            with _no_other_address():
                self._client: JobSubmissionClient = JobSubmissionClient(self.address)
        except AuthenticationError:
            raise ConfigError(
                "--address",
                f"{self.address} refuses the token",
                "export RAY_AUTH_TOKEN=… (on Kubernetes, auth_token in the cluster's Secret)",
            ) from None
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise ConfigError(
                "--address",
                f"no Ray dashboard answers at {self.address} ({first_line(error)})",
                "name the address of the cluster's dashboard, such as http://127.0.0.1:8265",
            ) from None

    def attempts(self, run_id: str) -> list[JobDetails]:
        """The jobs of a run, the oldest first."""
        jobs = self._ask(self._client.list_jobs)
        return sorted(
            (self._checked(job) for job in jobs if (job.metadata or {}).get(RUN_ID) == run_id and job.submission_id),
            key=lambda job: job.start_time or 0,
        )

    def submit(self, spec: JobSpec, shipped: Package) -> str:
        """Ship the working directory and start a job; its ID.

        The first job of a run has the run's ID; a later one, which resumes the run, has a number appended.
        """
        before = len(self.attempts(spec.run_id))
        job_id = spec.run_id if not before else f"{spec.run_id}-{before + 1}"
        with tempfile.TemporaryDirectory(prefix="gpo-submit-") as folder:
            archive = shipped.write(Path(folder))
            self._ask(
                lambda: self._client.submit_job(
                    entrypoint=spec.entrypoint,
                    submission_id=job_id,
                    runtime_env={"working_dir": str(archive)},
                    metadata={RUN_ID: spec.run_id},
                )
            )
        return job_id

    def info(self, job_id: str) -> JobDetails:
        """The state of a job.

        Raises:
            ConfigError: there is no such job.
        """
        return self._checked(self._ask(lambda: self._client.get_job_info(job_id)))

    def newest(self, run_or_job_id: str) -> str:
        """The ID of the newest job of a run; the ID of a job is returned unchanged."""
        attempts = self.attempts(run_or_job_id)
        return str(attempts[-1].submission_id) if attempts else run_or_job_id

    def stop(self, job_id: str) -> bool:
        """Stop a job with SIGTERM, so that it saves its work; whether it was running."""
        return bool(self._ask(lambda: self._client.stop_job(job_id)))

    def wait(self, job_id: str, timeout_s: float = math.inf) -> JobDetails:
        """Wait until a job has ended, or for some seconds; its last state.

        Raises:
            ClusterError: the cluster was unreachable for a minute.
        """
        return asked_until(lambda: self.info(job_id), lambda job: job.status.is_terminal(), timeout_s, _POLL_S)

    def follow(self, job_id: str, show: Callable[[str], None]) -> JobDetails:
        """Show a job's output from its beginning until the job ends; its final state.

        Raises:
            ClusterError: the cluster was unreachable for a minute.
        """
        asyncio.run(self._follow(job_id, show))
        return self.wait(job_id)

    def logs(self, run_id: str, show: Callable[[str], None]) -> None:
        """Show the output of all jobs of a run, the oldest first.

        Raises:
            ConfigError: there is none.
        """
        jobs = [str(job.submission_id) for job in self.attempts(run_id)] or [str(self.info(run_id).submission_id)]
        for job_id in jobs:
            show(f"--- {job_id}\n{self._ask(partial(self._client.get_job_logs, job_id))}\n")

    async def _follow(self, job_id: str, show: Callable[[str], None]) -> None:
        shown, reached = 0, time.monotonic()
        while True:
            seen, failure = 0, ""
            try:
                async for text in self._client.tail_job_logs(job_id):
                    # After a broken connection, the output starts from its beginning.
                    if (fresh := text[max(0, shown - seen) :]) and seen + len(text) > shown:
                        show(fresh)
                    seen += len(text)
                    shown = max(shown, seen)
            except (RuntimeError, OSError, aiohttp.ClientError) as error:
                failure = first_line(error)
            try:
                # Asked even if there is no more output: the job may be lost with its node.
                if (await asyncio.to_thread(self.info, job_id)).status.is_terminal():
                    return
                reached = time.monotonic()
            except ClusterError as error:
                if time.monotonic() - reached > _PATIENCE_S:
                    raise ClusterError(f"{self.address} cannot be reached: {failure or first_line(error)}") from None
            await asyncio.sleep(_POLL_S)

    def _checked(self, job: JobDetails) -> JobDetails:
        """The job, marked as failed if its driver was lost with its node.

        After the loss of a head node, Ray reports such a job as running until the next one is submitted.
        """
        from ray.job_submission import JobStatus

        if job.status.is_terminal() or not job.driver_node_id or job.driver_node_id not in self._lost_nodes():
            return job
        lost: JobDetails = job.model_copy(
            update={"status": JobStatus.FAILED, "message": "the node of its driver was lost"}
        )
        return lost

    def _lost_nodes(self) -> set[str]:
        from ray.util.state import list_nodes
        from ray.util.state.exception import RayStateApiException

        try:
            with _no_other_address():
                nodes = list_nodes(
                    address=self.address, filters=[("state", "=", "DEAD")], limit=1000, raise_on_missing_output=False
                )
        except (RayStateApiException, RuntimeError, OSError):  # unknown for now
            return set()
        return {node.node_id for node in nodes}

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except RuntimeError as refusal:  # the client raises it for every unsuccessful reply
            said = first_line(refusal)
            if "404" in said and "does not exist" in said:
                raise ConfigError(
                    "ID", f"there is no such job at {self.address}", "list them with: ray job list"
                ) from None
            raise ClusterError(f"{self.address} refused: {said}") from None
        except OSError as error:
            raise ClusterError(f"{self.address} cannot be reached: {first_line(error)}") from None


def asked_until(ask: Callable[[], _T], is_over: Callable[[_T], bool], timeout_s: float, poll_s: float) -> _T:
    """Ask a cluster until something is over, or for some seconds; the last answer.

    Raises:
        ClusterError: the cluster was unreachable for a minute.
    """
    reached = began = time.monotonic()
    while True:
        try:
            state = ask()
        except ClusterError:
            left_s = _PATIENCE_S - (time.monotonic() - reached)
            if left_s <= 0:
                raise
        else:
            reached = time.monotonic()
            left_s = timeout_s - (reached - began)
            if is_over(state) or left_s <= 0:
                return state
        time.sleep(min(poll_s, left_s))


def exit_code(job: JobDetails) -> int:
    """The driver's exit code; 1 if it ended without one."""
    if job.status.value == "SUCCEEDED":
        return 0
    return job.driver_exit_code if job.driver_exit_code in (1, 2) else 1


def _resolved(address: str | None) -> str:
    found = address or next(filter(None, (os.environ.get(name) for name in _ADDRESS_VARIABLES)), DEFAULT_ADDRESS)
    refuse_credentials("--address", found, "leave it out; a cluster's token is in RAY_AUTH_TOKEN")
    parts = urlsplit(found)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            "--address",
            f"{found!r} is not the address of a Ray dashboard",
            "write it as http://HOST:8265; for a cluster on Kubernetes, use kubectl port-forward",
        )
    return found.rstrip("/")


@contextmanager
def _no_other_address() -> Iterator[None]:
    """Hide the addresses in the environment, which Ray would prefer to ours. A program may need them later."""
    hidden = {name: os.environ.pop(name) for name in _ADDRESS_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _prepare_environment() -> None:
    """Set variables that Ray reads when it is imported."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
