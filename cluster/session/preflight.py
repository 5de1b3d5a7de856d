"""The check before a run: a real call to each model, before Ray starts and more is paid for.

The calls have the parameters of the run's own. Those of the task model go through the completion cache, so that the run
gets their replies from there.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from cluster.config import RunConfig
from cluster.config.models import EmbeddedChatConfig, EndpointConfig, FunctionChatConfig
from cluster.config.run import BudgetConfig
from cluster.session.models import (
    Access,
    ChatRole,
    Role,
    SampledModel,
    chat_model,
    embedded_spec,
    embedder,
    program_models,
)
from gpo.data.example import Example
from gpo.data.task import Split, Task
from gpo.errors import (
    ConfigError,
    EvaluationError,
    GPOError,
    MalformedReply,
    ModelError,
    ModelRefused,
    ModelUnavailable,
    RefusalReason,
)
from gpo.evaluation.answer_format import Position
from gpo.evaluation.evaluator import follow_up, second_question
from gpo.evaluation.metrics import Rubric
from gpo.evaluation.program import Program, ProgramSpec
from gpo.evaluation.prompt_template import headings
from gpo.limits.limiter import Limiter, LocalLimiter
from gpo.models.adapting import AdaptingModel
from gpo.models.protocol import Completion, Usage
from gpo.models.retrying import RetryPolicy
from gpo.prompt import Prompt
from gpo.score import Score
from gpo.strategies.meta_prompt import Brief
from gpo.strategies.proposer import parse_reply
from gpo.strategies.rules import search_rules
from gpo.trajectory import Candidate, Direction

_T = TypeVar("_T")

_LIMIT_S = 60.0
"""A model that takes longer may load its weights, or think; the run waits for it as long as its options say."""
_SAY_AFTER_S = 4.0
_GRACE_S = 2.0
_SEED = 2**31 - 1
"""As large as the run's own seeds may be."""

_Calls = dict[asyncio.Future[None], Role]

Say = Callable[[str], None]
"""Receives a description of the pending calls."""


@dataclass(slots=True)
class Checked:
    """What the check found out about models that can be used.

    Attributes:
        refused: parameters that endpoints refuse, and that the run need not send.
        warnings: sentences about replies that the run could not use.
        usage: the cost of the task model's and the judge's calls.
        kept: the part of it whose replies the run gets from the cache.
    """

    refused: dict[tuple[str, str, str], frozenset[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list[str])
    usage: dict[Role, Usage] = field(default_factory=dict)
    kept: dict[Role, Usage] = field(default_factory=dict[Role, Usage])

    def counted(self, role: Role, usage: Usage) -> Usage:
        """The usage of a role's calls, with the calls of the check in place of the cache's answers to them."""
        own, kept = self.usage.get(role, Usage()), self.kept.get(role, Usage())
        if usage.cached >= kept.requests:
            usage = replace(
                usage,
                cached=usage.cached - kept.requests,
                cached_tokens=usage.cached_tokens - kept.prompt_tokens - kept.completion_tokens,
                cached_usd=usage.cached_usd - kept.cost_usd,
            )
        return usage + replace(own, cached=0, cached_tokens=0, cached_usd=0.0)


async def check_models(
    config: RunConfig,
    tasks: Sequence[Task],
    roles: Sequence[Role] | None = None,
    *,
    prompt: Prompt | None = None,
    split: Split = Split.VAL,
    say: Say = lambda _: None,
    limiter: Limiter | None = None,
) -> Checked:
    """Check every model: the weights exist; the endpoint accepts the key and answers as the run needs it.

    Each endpoint gets one call: the task model with the prompt and the first example, the judge with the rubric on that
    answer, the optimizer model with a meta-prompt, the embedding model with the prompt. The task model gets a call for
    each form of conversation that the tasks have: with and without a system message, with and without earlier answers.
    Calls of different models run side by side. A model with ``check: false`` gets none.

    Args:
        tasks: loaded; the first task that a model judges is used, otherwise the first task. Other tasks are used where
            their conversations have another form.
        roles: roles of the models to check; ``None`` means all that a run of this configuration calls.
        prompt: ``None`` is each task's initial prompt.
        say: receives a description of the pending calls every few seconds.
        limiter: grants slots and permits for the calls; ``None`` is one for these calls alone.

    Raises:
        ConfigError: a model fails the check; or a package that the run needs is missing.
    """
    if roles is None:
        config.tracing.require_package()
        config.tracking.require_package()
    judged = [task for task in tasks if isinstance(task.scorer, Rubric)]
    judges: tuple[Role, ...] = ("judge",) if judged else ()
    chosen: Sequence[Role] = roles or ("task", "optimizer", *judges, "embedding")
    for role in chosen:
        where, model = _section(config, role)
        if isinstance(model, EmbeddedChatConfig):
            embedded_spec(model).check(f"{where}.gguf")
        elif isinstance(model, EndpointConfig):
            try:
                await asyncio.to_thread(model.build().require_secrets)  # a command may take seconds
            except ConfigError as error:
                raise ConfigError(f"{where}.{error.field}", error.problem, error.remedy) from None
    limiter = limiter or LocalLimiter()
    check = _Check(config, _with_other_forms([*judged[:1], *tasks], split), prompt, split, limiter)
    calls = {role: call() for role in chosen if (call := check.call(role)) is not None}
    await _side_by_side(check, calls, say)
    return check.found


def _with_other_forms(tasks: Sequence[Task], split: Split) -> list[Task]:
    """The first task, and each whose conversations have roles that those of no earlier one have."""
    chosen: list[Task] = []
    known: set[frozenset[str]] = set()
    for task in tasks:
        example = task.examples[split][0]
        roles = frozenset(turn["role"] for turn in task.answer_format.messages(task.initial, example))
        forms = {roles, roles | {"assistant"}} if second_question(task, example) else {roles}
        if not forms <= known:
            chosen.append(task)
            known |= forms
    return chosen


def _section(config: RunConfig, role: Role) -> tuple[str, Any]:
    """The section of the configuration that names a role's model, and its content."""
    name = "optimizer" if role == "judge" and config.models.judge is None else role
    return f"models.{name}", getattr(config.models, name)


async def _side_by_side(check: _Check, calls: Mapping[Role, Coroutine[Any, Any, None]], say: Say) -> None:
    began = time.monotonic()
    tasks: _Calls = {asyncio.ensure_future(call): role for role, call in calls.items()}
    pending = set(tasks)
    try:
        while pending and (waited_s := time.monotonic() - began) < _LIMIT_S:
            if waited_s >= _SAY_AFTER_S:
                say(f"Waiting for the first reply of {_names(check, tasks, pending)}, for {waited_s:.0f} s …")
            done, pending = await asyncio.wait(pending, timeout=_SAY_AFTER_S, return_when=asyncio.FIRST_EXCEPTION)
            if any(task.exception() for task in done) and pending:
                # What several calls find, such as a wrong key, is reported for the first.
                _, pending = await asyncio.wait(pending, timeout=_GRACE_S)
            for task in tasks:
                if task not in pending:
                    task.result()
        if pending:
            check.found.warnings.append(
                f"{_names(check, tasks, pending)} did not reply within {_LIMIT_S:.0f} s; the run begins without that "
                "check"
            )
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _names(check: _Check, tasks: _Calls, pending: set[asyncio.Future[None]]) -> str:
    return " and ".join(check.name(role) for task, role in tasks.items() if task in pending)


class _QuickTries(RetryPolicy):
    """A few quick tries where the endpoint fails; where it says that there are too many calls, its wait is heeded."""

    def wait_s(self, failures: Sequence[ModelUnavailable], waited_s: float) -> float | None:
        wait_s = super().wait_s(failures, waited_s)
        if wait_s is None or failures[-1].too_many:
            return wait_s
        return min(wait_s, 1.0) if len(failures) < self.max_attempts else None


_TRIES = _QuickTries(max_attempts=4, patience_s=2 * _LIMIT_S)


class _Check:
    """The calls of the check: the task model's on all tasks, the others on the first one."""

    def __init__(
        self, config: RunConfig, tasks: Sequence[Task], prompt: Prompt | None, split: Split, limiter: Limiter
    ) -> None:
        self.found = Checked()
        # The run's budget is not open yet: no limiter grants a call that it would have to pay for.
        self._config = config.model_copy(update={"budget": BudgetConfig()})
        self._tasks, self._prompt, self._split = tasks, prompt, split
        self._task, self._example = tasks[0], self._first_example(tasks[0])
        self._access = Access({}, limiter, budget_name="check")
        self._answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def name(self, role: Role) -> str:
        """A role's section and model, for messages."""
        where, model = _section(self._config, role)
        return f"{where} ({model.model} at {model.base_url})" if isinstance(model, EndpointConfig) else where

    def call(self, role: Role) -> Callable[[], Coroutine[Any, Any, None]] | None:
        """The call of a role; ``None`` where nothing is to be called."""
        _, model = _section(self._config, role)
        if not isinstance(model, EndpointConfig | FunctionChatConfig) or not model.check:
            if role == "task":
                self._answer.set_result(self._example.target)
            return None
        match role:
            case "task":
                return self._task_model
            case "judge":
                return self._judge
            case "optimizer":
                return self._optimizer
            case "embedding":
                return self._embedding

    async def _task_model(self) -> None:
        model = chat_model(self._config, "task", self._access, retries=_TRIES)
        try:
            for task in self._tasks:
                try:
                    reply = await self._answered(model, task)
                except ConfigError as error:
                    raise self._with_position(task, error) from None
                if reply is None:
                    continue
                if not self._answer.done():
                    self._answer.set_result(reply.answer)
                if not reply.answer.strip():
                    cut = "is cut off at max_tokens before it answers" if reply.truncated else "is empty"
                    remedy = "raise models.task.sampling.max_tokens, or set what turns thinking off"
                    self._warn("task", cut, remedy)
        finally:
            if not self._answer.done():
                self._answer.set_result(self._example.target)

    def _first_example(self, task: Task) -> Example:
        """An example that the run scores anyway, so that the reply is not wasted."""
        examples = task.examples[self._split]
        if self._split is not Split.VAL:
            return examples[0]
        return examples[self._config.evaluation.scoring.first_example(len(examples), self._config.run.seeds[0])]

    async def _answered(self, model: SampledModel, task: Task) -> Completion | None:
        """The reply that a run would grade on the first example; ``None`` where only this call failed."""
        example = self._first_example(task)
        if task.program is not None:
            return await self._program(task.program, task, example)
        messages = task.answer_format.messages(self._prompt or task.initial, example)
        reply = await self._reply("task", model, model.model.complete(messages, model.sampling))
        question = second_question(task, example)
        if question is None or reply is None or not reply.answer.strip():
            return reply
        messages += follow_up(reply, question)
        return await self._reply("task", model, model.model.complete(messages, model.sampling))

    async def _program(self, spec: ProgramSpec, task: Task, example: Example) -> Completion | None:
        """The answer of a program to the first example; ``None`` where it cannot be tried, or only this call failed."""
        models = self._config.models
        if isinstance(models.optimizer, EmbeddedChatConfig) or isinstance(models.judge, EmbeddedChatConfig):
            return None  # it may call a model that does not run yet
        program = Program(spec, program_models(self._config, self._access, retries=_TRIES))
        try:
            response = await program.respond(self._prompt or task.initial, example)
        except EvaluationError as failure:
            index = [other.name for other in self._config.tasks].index(task.name)
            where = f"tasks[{index}].program.function"
            raise ConfigError(where, f"tried on the first example: {failure}", "correct the program") from None
        except ModelRefused as refusal:
            raise explained_refusal(self._config, refusal) from None
        self.found.usage["task"] = self.found.usage.get("task", Usage()) + response.usage
        if response.problem or response.fault:
            self.found.warnings.append(f"the program on the first example: {response.problem or response.fault}")
            return None
        return Completion(response.answer or "", response.usage)

    async def _judge(self) -> None:
        model = chat_model(self._config, "judge", self._access, retries=_TRIES)
        answer = await asyncio.shield(self._answer)
        rubric = self._task.scorer
        if not isinstance(rubric, Rubric):
            return
        work = model.model.complete(rubric.messages(answer, self._example), model.sampling)
        reply = await self._reply("judge", model, work)
        if reply is None:
            return
        try:
            rubric.read(reply.answer)
        except MalformedReply as malformed:
            self._warn_of_reply("judge", reply, malformed)

    async def _optimizer(self) -> None:
        # Not from the cache: it has nothing for the run, and would hide that a key is not valid any more.
        config, task, train = self._config, self._task, self._task.examples[Split.TRAIN]
        model = chat_model(config, "optimizer", self._access, retries=_TRIES, is_cached=False)
        settings = config.optimizer
        meta_prompt = config.meta_prompt.build(settings.refinement, settings.direction.form)
        current = Candidate(task.initial, Score((0.0,)))
        exemplars = train[: config.meta_prompt.exemplars]
        step_size = settings.schedule.build(max(1, config.num_updates(task)))(0)
        messages = meta_prompt.messages(
            Brief(
                current,
                Direction((current,), (None,)),
                step_size,
                exemplars,
                task.answer_format.position,
                goal=task.goal,
                rules=search_rules(task),
            )
        )
        sampling = model.sampling.seeded(_SEED).stopping_at(meta_prompt.stop)
        reply = await self._reply("optimizer", model, model.model.complete(messages, sampling))
        if reply is None:
            return
        try:
            parse_reply(reply)
        except MalformedReply as malformed:
            self._warn_of_reply("optimizer", reply, malformed)

    async def _embedding(self) -> None:
        prompt = self._prompt or self._task.initial
        await self._guarded("embedding", embedder(self._config, self._access, retries=_TRIES).embed([prompt.text]))

    async def _reply(self, role: ChatRole, model: SampledModel, call: Awaitable[Completion]) -> Completion | None:
        """A reply, counted; ``None`` where only this call failed."""
        reply = await self._guarded(role, call)
        _, section = _section(self._config, role)
        if isinstance(model.model, AdaptingModel) and isinstance(section, EndpointConfig) and model.model.refused:
            self.found.refused[role, section.base_url, section.model] = frozenset(model.model.refused)
        if reply is not None and role != "optimizer":
            usage, kept = self.found.usage, self.found.kept
            usage[role] = usage.get(role, Usage()) + reply.usage
            is_kept = self._config.cache.kind != "none" and bool(reply.answer.strip() or reply.truncated)
            if is_kept and reply.usage.requests and (role == "task" or "task" in usage):
                kept[role] = kept.get(role, Usage()) + reply.usage
        return reply

    async def _guarded(self, role: Role, call: Awaitable[_T]) -> _T | None:
        where, endpoint = _section(self._config, role)
        if isinstance(endpoint, FunctionChatConfig):
            try:
                return await call
            except (ModelError, EvaluationError) as failure:
                remedy = f"correct the function, or set {where}.check: false to begin anyway"
                raise ConfigError(f"{where}.function", f"the first call failed: {failure}", remedy) from None
        try:
            return await call
        except ModelRefused as refusal:
            if refusal.reason is RefusalReason.FILTER:
                self.found.warnings.append(f"the first call: {_explained(where, endpoint, refusal)}")
                return None
            raise _explained(where, endpoint, refusal) from None
        except ModelUnavailable as failure:
            if failure.too_many:
                return None
            raise _unavailable(where, endpoint, failure) from None

    def _with_position(self, task: Task, error: ConfigError) -> ConfigError:
        position = task.answer_format.position
        is_template = position is Position.TEMPLATE
        is_system = bool(headings(task.initial.text)) if is_template else position is Position.SYSTEM
        if not is_system or not re.search(r"\bsystem\b", error.problem, re.IGNORECASE):
            return error
        index = [other.name for other in self._config.tasks].index(task.name)
        remedy = f"set tasks[{index}].position to question_begin, which needs no system message"
        if is_template:
            remedy = f"write tasks[{index}].prompt as one text, without a system message"
        return ConfigError(error.field, error.problem, remedy)

    def _warn(self, role: Role, flaw: str, remedy: str) -> None:
        warning = f"the first reply of {self.name(role)} {flaw}; {remedy}"
        if warning not in self.found.warnings:
            self.found.warnings.append(warning)

    def _warn_of_reply(self, role: Role, reply: Completion, malformed: MalformedReply) -> None:
        where, _ = _section(self._config, role)
        if reply.truncated:
            self._warn(role, "is cut off at max_tokens", f"raise {where}.sampling.max_tokens")
        elif not reply.answer.strip():
            self._warn(role, "is empty", f"try another {where}.model, or set what turns thinking off")
        else:
            self._warn(role, f"cannot be used ({malformed})", f"more than a few of them need another {where}.model")


def explained_refusal(config: RunConfig, refusal: ModelRefused) -> GPOError:
    """The refusal of a call, as the error that the check before the run would have raised."""
    for role in ("task", "optimizer", "judge", "embedding"):
        model = getattr(config.models, role)
        if not isinstance(model, EndpointConfig):
            continue
        asked = (model.model, model.base_url, model.key.location)
        if asked == (refusal.model, refusal.base_url, refusal.key_location):
            if refusal.reason is RefusalReason.REQUEST:
                return refusal
            return _explained(f"models.{role}", model, refusal)
    return refusal


def _explained(where: str, endpoint: EndpointConfig, refusal: ModelRefused) -> ConfigError:
    """The option that a refusal concerns, the cause and the remedy."""
    url, source, said = endpoint.base_url, endpoint.key, _said(endpoint, refusal)
    key_field = f"{where}.{source.option}"
    match refusal.reason:
        case RefusalReason.KEY:
            problem = f"{url} refused the key in {source.location} ({said})"
            return ConfigError(key_field, problem, "set a key that is valid there")
        case RefusalReason.CREDIT:
            problem = f"{url} reports that no credit is left for the key in {source.location} ({said})"
            return ConfigError(key_field, problem, "add credit there, or set the key of another account")
        case RefusalReason.MODEL:
            problem = f"{endpoint.model!r} is unknown or not allowed at {url} ({said})"
            return ConfigError(f"{where}.model", problem, "correct the name, or fix what the endpoint reports")
        case RefusalReason.PATH:
            return ConfigError(f"{where}.base_url", f"{url} is not the address of an API ({said})", _path_remedy(url))
        case RefusalReason.FILTER:
            problem = f"a filter at {url} refuses the text ({said})"
            return ConfigError(where, problem, "change the prompt or the examples in it, or the filter's settings")
        case RefusalReason.REQUEST:
            name = f".sampling.{refusal.parameter}" if refusal.parameter else ""
            problem = f"{url} refuses the call ({said})"
            remedy = "leave the parameter out or change it" if name else "fix what the endpoint reports"
            return ConfigError(f"{where}{name}", problem, f"{remedy}, or set {where}.check: false to begin anyway")


def _unavailable(where: str, endpoint: EndpointConfig, failure: ModelUnavailable) -> ConfigError:
    url, said, field = endpoint.base_url, _said(endpoint, failure), f"{where}.base_url"
    is_answered = bool(re.match(r"HTTP \d", said))
    if failure.is_away and not is_answered:
        return ConfigError(field, f"{url} cannot be reached ({said})", "start it, or correct base_url")
    if is_answered:
        return ConfigError(field, f"{url} answers {said}", "try again once the endpoint is up")
    remedy = f"{_path_remedy(url)}, or set {where}.check: false to begin anyway"
    return ConfigError(field, f"no call to {url} succeeds ({said})", remedy)


def _path_remedy(url: str) -> str:
    is_whole = re.search(r"/v\d|/deployments/", urlsplit(url).path)
    return "correct base_url" if is_whole else f"write base_url up to and including /v1: {url}/v1"


def _said(endpoint: EndpointConfig, error: ModelError) -> str:
    """The endpoint's own words, without the model and the address before them."""
    return str(error).removeprefix(f"{endpoint.model} at {endpoint.base_url}: ")
