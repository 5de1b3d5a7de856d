"""All errors of the project.

    GPOError
    ├── ConfigError          a setting or data file is unusable; names the field, the value and the remedy
    ├── ModelError           a call to a language model failed
    │   ├── ModelUnavailable     transient; was retried with jittered backoff
    │   ├── ModelRefused         final: key, model name, context length, content filter; never retried
    │   └── MalformedReply       the reply does not contain what was asked for
    ├── AnswerError          raised by a program of the user: a model's answer cannot be used
    ├── EvaluationError      the user's metric failed
    │   └── PromptUnscored       too many examples of one prompt are unscored
    ├── StrategyError        a strategy of the user failed
    ├── BudgetExhausted      a budget of calls, tokens, money or time is used up
    ├── ClusterError         Ray or Serve cannot start a part of the program
    │   └── OutOfReach           a part that was running does not answer any more
    ├── StorageError         a file of the run cannot be read or written
    │   ├── CheckpointError      a checkpoint is damaged (``gpo.checkpoint.DamagedCheckpoint``) or of another version
    │   └── LeaseHeld, LeaseLost another process works in the folder (``actors.lease``)
    └── TrajectoryLost       a trajectory failed for good

To add an error, derive it from the nearest parent and say in its docstring what raises it and what handles it. Pass
every constructor argument *positionally* to ``super().__init__``: exceptions cross process boundaries by pickling
``args``, and an exception with keyword-only arguments arrives as an unreadable wrapper. A message says what happened,
with the value, then what to do.
"""

from __future__ import annotations

from enum import StrEnum


class GPOError(Exception):
    """The base of all errors that this project raises on purpose."""


class ConfigError(GPOError):
    """A setting or a data file cannot be used. Raised before any language model is called.

    Args:
        field: its location, as the user writes it: ``optimizer.schedule.initial``, ``--task``, ``val.jsonl:3``.
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
    """A transient failure: no connection, a timeout, HTTP 408, 409, 429 or 5xx, a body that is not a completion.

    Raised once the retries of the model client are used up.

    Args:
        retries: how many retries there were.
        retry_after_s: how long the endpoint asked to wait, in seconds.
        too_many: whether the endpoint only said that there were too many calls.
        is_away: whether the call reached no endpoint, so that the failure is not due to the call.
        billed: the tokens and the cost of replies that cannot be used, a ``gpo.models.protocol.Usage``; ``None`` if the
            endpoint reports none.
    """

    def __init__(
        self,
        message: str,
        retries: int = 0,
        retry_after_s: float | None = None,
        too_many: bool = False,
        is_away: bool = False,
        billed: object = None,
    ) -> None:
        super().__init__(message, retries, retry_after_s, too_many, is_away, billed)
        self.retries = retries
        self.retry_after_s = retry_after_s
        self.too_many = too_many
        self.is_away = is_away
        self.billed = billed

    def __str__(self) -> str:
        return str(self.args[0])


class RefusalReason(StrEnum):
    """Why an endpoint refused a call for good."""

    KEY = "key"
    """The API key is wrong, or may not use this model."""
    CREDIT = "credit"
    """The account has no credit or quota left."""
    MODEL = "model"
    """The endpoint does not know the model, or its policy excludes it."""
    PATH = "path"
    """The URL is not the address of an API."""
    FILTER = "filter"
    """A content filter or a firewall refuses this text."""
    REQUEST = "request"
    """This one request: too long, malformed, or with a parameter that the endpoint does not accept."""

    @property
    def concerns_every_call(self) -> bool:
        """Whether every other call would be refused as well."""
        return self not in (RefusalReason.FILTER, RefusalReason.REQUEST)


class ModelRefused(ModelError):
    """The endpoint refused a call for good; the same call would be refused again.

    A refusal of every call ends the run; a refusal of this call alone leaves its example unscored.

    Args:
        message: what the endpoint said.
        reason: what the refusal concerns.
        model: the model that was called, at ``base_url``.
        key_location: the file or environment variable of the key that was sent; never the key.
        parameter: the parameter of the request that the endpoint does not accept; empty where that is not the reason.
        billed: as for ``ModelUnavailable``; a filtered reply costs its tokens, too.
    """

    def __init__(
        self,
        message: str,
        reason: RefusalReason,
        model: str = "",
        base_url: str = "",
        key_location: str = "",
        parameter: str = "",
        billed: object = None,
    ) -> None:
        super().__init__(message, reason, model, base_url, key_location, parameter, billed)
        self.reason = reason
        self.model = model
        self.base_url = base_url
        self.key_location = key_location
        self.parameter = parameter
        self.billed = billed

    def costing(self, billed: object) -> ModelRefused:
        """The same refusal with another cost."""
        where = (self.model, self.base_url, self.key_location)
        return ModelRefused(str(self), self.reason, *where, self.parameter, billed)

    def __str__(self) -> str:
        return str(self.args[0])


class MalformedReply(ModelError):
    """The model replied, but the reply does not contain what was asked for.

    A reply without a usable prompt is dropped and counted. An answer without a verdict of the judge stays unscored.
    """


class EvaluationError(GPOError):
    """Prompts cannot be scored: a function of the user failed, or see ``PromptUnscored``."""


class AnswerError(GPOError):
    """The model's answer cannot be used: raised by a program of the user. The example scores 0, with this message."""


class PromptUnscored(EvaluationError):
    """More examples of one prompt are unscored than the configuration tolerates.

    In a step, the candidate is dropped and the search continues, unless no endpoint answered for any of them.

    Args:
        message: how many, and the first failure.
        is_refused: whether the endpoint refused requests with this prompt, rather than being unavailable.
        spending: what the evaluation cost, a ``gpo.trajectory.Spending``.
    """

    def __init__(self, message: str, is_refused: bool, spending: object = None) -> None:
        super().__init__(message, is_refused, spending)
        self.is_refused = is_refused
        self.spending = spending

    def __str__(self) -> str:
        return str(self.args[0])


class StrategyError(GPOError):
    """A strategy of the user cannot be built, failed, or returned what a search cannot use.

    Raised before a run, or by the search that uses the strategy; the search ends with its last checkpoint.
    """


class BudgetExhausted(GPOError):
    """A budget of calls, tokens, money or time is used up. Ends the run, whose results so far are saved."""


class ClusterError(GPOError):
    """Ray or Serve cannot start a part of the program. Parts that were running before are not affected."""


class Part(StrEnum):
    """A part of the program that other parts call."""

    EVALUATOR = "evaluator"
    LIMITER = "limiter"


class OutOfReach(ClusterError):
    """A part of the program did not answer, and did not come back in time.

    Raised by its callers, in a trajectory's actor or a replica. The supervisor then resumes the trajectory.

    Args:
        part: the part that was called.
        problem: the last error.
    """

    def __init__(self, part: Part, problem: str) -> None:
        super().__init__(part, problem)
        self.part = part
        self.problem = problem

    def __str__(self) -> str:
        return f"the {self.part} is out of reach: {self.problem}"


class StorageError(GPOError):
    """A file of the run cannot be read or written: no space, no permission, an unreachable object store."""


class CheckpointError(StorageError):
    """A checkpoint is damaged, of another schema version, or of another search."""


class TrajectoryLost(GPOError):
    """A trajectory failed for good; its last checkpoint remains."""
