"""What can fail, as a tree.

    GPOError
    ├── ConfigError          the user's configuration or data; names field, value and remedy
    ├── ModelError           one call to a language model
    │   ├── ModelUnavailable     transient: retried with jittered backoff
    │   ├── ModelRefused         final: key, model name, context length, content filter; never retried
    │   └── MalformedReply       a reply arrived, but what was asked for is not in it
    ├── EvaluationError      too many examples of one evaluation stayed unscored, or none can be judged
    ├── BudgetExhausted      the run may not spend more
    ├── ClusterError         Ray or Serve cannot start a part of the program
    │   └── OutOfReach           a part that had stood does not answer any more
    ├── StorageError         the run's folder cannot be read or written
    │   ├── CheckpointError      a checkpoint is damaged (``gpo.checkpoint.DamagedCheckpoint``) or of another version
    │   └── LeaseHeld, LeaseLost another process works there (``actors.lease``)
    └── TrajectoryLost       one trajectory could not be carried to its end

To add one: derive from the nearest parent, say in the docstring who raises it and who handles it, and hand every
constructor argument *positionally* to ``super().__init__``. An exception crosses process boundaries by pickling
``args``; one with keyword-only arguments arrives as an unreadable wrapper. A message says what happened, with the
value, then what to do.
"""

from __future__ import annotations

from enum import StrEnum


class GPOError(Exception):
    """Anything this project raises on purpose."""


class ConfigError(GPOError):
    """A setting or a data file that cannot be used, found before any language model is called.

    Args:
        field: where it stands, as the user writes it: ``optimizer.schedule.initial``, ``--task``, ``val.jsonl:3``.
        problem: the value and what is wrong with it.
        remedy: what to do about it, as an instruction.
    """

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(field, problem, remedy)
        self.field = field
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}; {self.remedy}"


class ModelError(GPOError):
    """A call to a language model failed."""


class ModelUnavailable(ModelError):
    """Transient: no connection, a time-out, HTTP 408, 409, 429 or 5xx, a body that is no completion.

    Raised once the bounded retries of the model client are used up. ``retries`` says how many there were,
    ``retry_after_s`` how long the endpoint asked to wait, in seconds, ``too_many`` whether it said that there were too
    many calls, and nothing else, ``is_away`` whether the call did not reach any endpoint, so that the failure tells
    nothing about the call.
    """

    def __init__(
        self,
        message: str,
        retries: int = 0,
        retry_after_s: float | None = None,
        too_many: bool = False,
        is_away: bool = False,
    ) -> None:
        super().__init__(message, retries, retry_after_s, too_many, is_away)
        self.retries = retries
        self.retry_after_s = retry_after_s
        self.too_many = too_many
        self.is_away = is_away

    def __str__(self) -> str:
        return str(self.args[0])


class RefusalReason(StrEnum):
    """Why an endpoint said a final no."""

    KEY = "key"
    """The API key is wrong or may not use this model (HTTP 401, 403), or the account has no quota left."""
    MODEL = "model"
    """The endpoint does not know the model (HTTP 404)."""
    REQUEST = "request"
    """This one request: too long, filtered, malformed (other HTTP 4xx)."""


class ModelRefused(ModelError):
    """A final no from the endpoint; the same call would be refused again.

    ``KEY`` and ``MODEL`` concern every call and end the run; ``REQUEST`` concerns one and leaves it unscored.

    Args:
        message: what the endpoint said.
        reason: what it is about.
        model: the model that was asked, and ``base_url`` where.
        key_location: what names the key that was sent: a file, or a variable; never the key.
    """

    def __init__(
        self, message: str, reason: RefusalReason, model: str = "", base_url: str = "", key_location: str = ""
    ) -> None:
        super().__init__(message, reason, model, base_url, key_location)
        self.reason = reason
        self.model = model
        self.base_url = base_url
        self.key_location = key_location

    def __str__(self) -> str:
        return str(self.args[0])


class MalformedReply(ModelError):
    """The model replied, but what was asked for is not in the reply.

    A reply without a usable prompt is dropped and counted; an answer that the judge gave no verdict on stays unscored.
    """


class EvaluationError(GPOError):
    """More examples stayed unscored than the configuration tolerates, or a function of the user's own failed."""


class BudgetExhausted(GPOError):
    """A budget of calls, tokens, money or time is used up. Ends the run; what is done is saved."""


class ClusterError(GPOError):
    """Ray or Serve cannot start a part of the program; what stood before still stands."""


class Part(StrEnum):
    """A part of the program that others ask."""

    EVALUATOR = "evaluator"
    LIMITER = "limiter"


class OutOfReach(ClusterError):
    """A part of the program did not answer in all the time that it was given to come back.

    Raised by those who ask it, in a trajectory's actor or a replica; the supervisor asks for the trajectory again.

    Args:
        part: which.
        problem: what was met last.
    """

    def __init__(self, part: Part, problem: str) -> None:
        super().__init__(part, problem)
        self.part = part
        self.problem = problem

    def __str__(self) -> str:
        return f"the {self.part} is out of reach: {self.problem}"


class StorageError(GPOError):
    """A file of the run cannot be read or written: no space, no permission, an object store out of reach."""


class CheckpointError(StorageError):
    """A checkpoint is damaged, or of another schema version."""


class TrajectoryLost(GPOError):
    """A trajectory failed for good; what it had reached is in its last checkpoint."""
