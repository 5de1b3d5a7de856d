"""``gpo submit``: a run as a job on a Ray cluster, through its Jobs API."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp

from cluster.config.secrets import refuse_credentials
from cluster.submitting.package import Package
from gpo.errors import ClusterError, ConfigError

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails
    from ray.job_submission import JobSubmissionClient

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
RUN_ID = "gpo_run_id"
"""Metadata of a job: the run that it carries on."""
_ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_POLL_S = 1.0
_PATIENCE_S = 60.0
"""How long the Jobs API may be out of reach while a job is followed."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a job is to do.

    Attributes:
        command: of ``gpo``: ``run`` or ``sweep``.
        config: as the cluster finds it.
        overrides: ``--set`` options.
        run_id: of the run; the first job that carries it on has the same id.
        run_dir: the run's folder, which all nodes reach.
    """

    command: str
    config: str
    overrides: Sequence[str]
    run_id: str
    run_dir: str

    @property
    def entrypoint(self) -> str:
        """The command line. It begins the run, or goes on with it where there is one."""
        return shlex.join(["python", "-m", "cluster.cli", self.command, self.config, *self._options])

    @property
    def _options(self) -> list[str]:
        options = [part for override in self.overrides for part in ("--set", override)]
        options += ["--run-id", self.run_id] if self.command == "run" else []
        return [*options, "--run-dir", self.run_dir, "--resume"]


def require_reachable(field: str, place: str) -> None:
    """Refuse a folder below a job's working directory, which is deleted with the job.

    Raises:
        ConfigError: the place is relative.
    """
    if "://" not in place and not Path(place).is_absolute():
        raise ConfigError(
            field,
            f"{place!r} is relative, and would be lost with the job's working directory",
            "name a folder that all nodes reach, from / on, or an fsspec URL such as s3://bucket/runs",
        )


class Jobs:
    """The Jobs API of a cluster.

    Args:
        address: of the cluster's dashboard, ``http(s)://HOST:PORT``; left out: ``RAY_API_SERVER_ADDRESS``, or a
            ``RAY_ADDRESS`` of this form, or else this machine's.

    Raises:
        ConfigError: the address cannot be used, nothing answers there, or it asks for another token.
    """

    def __init__(self, address: str | None) -> None:
        self.address = _resolved(address)
        _prepare_environment()
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient

        for chatty in ("dashboard_sdk", "job.sdk"):  # tell of every upload and of the end of every stream
            logging.getLogger(f"ray.dashboard.modules.{chatty}").setLevel(logging.WARNING)
        try:
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
                f"no Ray dashboard answers at {self.address} ({str(error).strip().partition(chr(10))[0]})",
                "name the address of the cluster's dashboard, such as http://127.0.0.1:8265",
            ) from None

    def attempts(self, run_id: str) -> list[JobDetails]:
        """The jobs that carried on a run, the oldest first."""
        jobs = self._ask(self._client.list_jobs)
        return sorted(
            (self._as_it_is(job) for job in jobs if (job.metadata or {}).get(RUN_ID) == run_id and job.submission_id),
            key=lambda job: job.start_time or 0,
        )

    def submit(self, order: Order, shipped: Package) -> str:
        """Ship the working directory and start a job; its id.

        The first job of a run has the run's id; a later one, which goes on with it, has a number added.
        """
        before = len(self.attempts(order.run_id))
        job_id = order.run_id if not before else f"{order.run_id}-{before + 1}"
        with tempfile.TemporaryDirectory(prefix="gpo-submit-") as folder:
            archive = shipped.write(Path(folder))
            self._ask(
                lambda: self._client.submit_job(
                    entrypoint=order.entrypoint,
                    submission_id=job_id,
                    runtime_env={"working_dir": str(archive)},
                    metadata={RUN_ID: order.run_id},
                )
            )
        return job_id

    def info(self, job_id: str) -> JobDetails:
        """How a job is doing.

        Raises:
            ConfigError: there is no such job.
        """
        return self._as_it_is(self._ask(lambda: self._client.get_job_info(job_id)))

    def newest(self, run_or_job_id: str) -> str:
        """The id of the newest job of a run; an id of a job is its own."""
        attempts = self.attempts(run_or_job_id)
        return str(attempts[-1].submission_id) if attempts else run_or_job_id

    def stop(self, job_id: str) -> bool:
        """Have a job told to stop (SIGTERM), which saves what is done; whether it was running."""
        return bool(self._ask(lambda: self._client.stop_job(job_id)))

    def wait(self, job_id: str) -> JobDetails:
        """Wait for a job's end; how it ended.

        Raises:
            ClusterError: the cluster was out of reach for a minute.
        """
        reached = time.monotonic()
        while True:
            try:
                job = self.info(job_id)
            except ClusterError:
                if time.monotonic() - reached > _PATIENCE_S:
                    raise
            else:
                reached = time.monotonic()
                if job.status.is_terminal():
                    return job
            time.sleep(_POLL_S)

    def follow(self, job_id: str, show: Callable[[str], None]) -> JobDetails:
        """Show a job's output as it comes, from its beginning, until its end; how it ended.

        Raises:
            ClusterError: the cluster was out of reach for a minute.
        """
        asyncio.run(self._follow(job_id, show))
        return self.wait(job_id)

    async def _follow(self, job_id: str, show: Callable[[str], None]) -> None:
        shown, reached = 0, time.monotonic()
        while True:
            seen, failure = 0, ""
            try:
                async for text in self._client.tail_job_logs(job_id):
                    # A connection that broke begins anew, from the start.
                    if (fresh := text[max(0, shown - seen) :]) and seen + len(text) > shown:
                        show(fresh)
                    seen += len(text)
                    shown = max(shown, seen)
            except (RuntimeError, OSError, aiohttp.ClientError) as error:
                failure = _first_line(error)
            try:
                # Also where there is no more output to be had: its node may be lost, and the job with it.
                if (await asyncio.to_thread(self.info, job_id)).status.is_terminal():
                    return
                reached = time.monotonic()
            except ClusterError as error:
                if time.monotonic() - reached > _PATIENCE_S:
                    raise ClusterError(f"{self.address} is out of reach: {failure or _first_line(error)}") from None
            await asyncio.sleep(_POLL_S)

    def _as_it_is(self, job: JobDetails) -> JobDetails:
        """A job whose driver was lost with its node has failed.

        With the head node lost, Ray says that the job runs until the next one is submitted.
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
            nodes = list_nodes(
                address=self.address, filters=[("state", "=", "DEAD")], limit=1000, raise_on_missing_output=False
            )
        except (RayStateApiException, RuntimeError, OSError):  # not now
            return set()
        return {node.node_id for node in nodes}

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except RuntimeError as refusal:  # how the client puts a reply that is no success
            said = _first_line(refusal)
            if "404" in said and "does not exist" in said:
                raise ConfigError(
                    "ID", f"there is no such job at {self.address}", "list them with: ray job list"
                ) from None
            raise ClusterError(f"{self.address} refused: {said}") from None
        except OSError as error:
            raise ClusterError(f"{self.address} is out of reach: {_first_line(error)}") from None


def exit_code(job: JobDetails) -> int:
    """The driver's exit code; 1 where it was ended without one."""
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
            "write it as http://HOST:8265; a cluster on Kubernetes is reached by: kubectl port-forward",
        )
    return found.rstrip("/")


def _prepare_environment() -> None:
    """Ray reads these when it is imported, and would put the addresses before ours."""
    for name in _ADDRESS_VARIABLES:
        os.environ.pop(name, None)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0]
