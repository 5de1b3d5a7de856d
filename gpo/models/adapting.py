"""A model that leaves out the parameters that its endpoint refuses."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from gpo.errors import ModelRefused
from gpo.models.protocol import ChatModel, Completion, Message, Sampling
from gpo.runtime.process import PicklesFieldsOnly

log = logging.getLogger(__name__)

LIMIT_FIELDS = ("max_tokens", "max_completion_tokens")
DROPPABLE = frozenset({"seed", "temperature", "top_p", "stop", *LIMIT_FIELDS})
"""Parameters without which a request still asks for the same thing."""


@dataclass(frozen=True)
class AdaptingModel(PicklesFieldsOnly):
    """Repeats a request without the parameter that the endpoint refuses, and leaves it out from then on.

    ``max_tokens`` and ``max_completion_tokens`` are tried in place of each other first. This model wraps the cache, so
    requests with and without a parameter have different cache keys.

    Args:
        name: of the model, for the log.
        limit_field: of the model below; see ``OpenAIModel``.
        known: parameters that are known to be refused.
    """

    model: ChatModel
    name: str
    limit_field: str = "max_tokens"
    known: frozenset[str] = frozenset()

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        """Reply to a conversation; see ``gpo.models.protocol.ChatModel``."""
        while True:
            before = frozenset(self.refused)
            try:
                return await self.model.complete(messages, self._adapted(sampling))
            except ModelRefused as refusal:
                if refusal.parameter not in DROPPABLE or refusal.parameter in before:
                    raise
                if refusal.parameter not in self.refused:
                    self.refused.add(refusal.parameter)
                    log.warning("%s", self.explanation(refusal.parameter))

    @cached_property
    def refused(self) -> set[str]:
        """The parameters that the endpoint refuses, as far as this process knows."""
        return set(self.known)

    def explanation(self, parameter: str) -> str:
        """What is done about a refused parameter."""
        other = next((field for field in LIMIT_FIELDS if field not in self.refused), None)
        if parameter in LIMIT_FIELDS and other is not None:
            return f"{self.name} does not accept {parameter}: requests have {other} instead"
        return f"{self.name} does not accept {parameter}: requests are sent without it"

    def _adapted(self, sampling: Sampling) -> Sampling:
        refused = self.refused
        if not refused:
            return sampling
        limits = [field for field in LIMIT_FIELDS if field not in refused]
        return replace(
            sampling,
            is_repeatable=sampling.temperature == 0 or sampling.seed is not None,  # what was meant
            seed=None if "seed" in refused else sampling.seed,
            temperature=None if "temperature" in refused else sampling.temperature,
            top_p=None if "top_p" in refused else sampling.top_p,
            stop=() if "stop" in refused else sampling.stop,
            max_tokens=sampling.max_tokens if limits else None,
            limit_field=limits[0] if self.limit_field in refused and limits else sampling.limit_field,  # type: ignore[arg-type]
        )
