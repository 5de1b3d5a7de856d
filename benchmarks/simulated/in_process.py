"""The simulated models in this process: what the endpoint would reply, without HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.simulated.generating import generated
from benchmarks.simulated.protocol import ChatRequest, cut
from benchmarks.simulated.service import Behaviour
from gpo.models.protocol import Completion, Message, Sampling, Usage


@dataclass(frozen=True, slots=True)
class SimulatedModel:
    """A ``ChatModel`` in any role: task model, optimizer model or judge, as the conversation asks. Stateless.

    Attributes:
        behaviour: of which only ``seed`` and ``malformed_rate`` matter here; there are no latency, limits or faults.
    """

    behaviour: Behaviour = field(default_factory=Behaviour)

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        request = ChatRequest(
            model="",
            messages=tuple(messages),
            n=1,
            temperature=1.0 if sampling.temperature is None else sampling.temperature,
            max_tokens=sampling.max_tokens,
            stop=sampling.stop,
            seed=sampling.seed,
        )
        choice = cut(generated(request, self.behaviour.seed, self.behaviour.malformed_rate, 0), request)
        # The real ones give way to the event loop, too.
        await asyncio.sleep(0)
        truncated = choice.finish_reason == "length"
        usage = Usage(
            requests=1,
            prompt_tokens=request.prompt_tokens,
            completion_tokens=choice.tokens,
            empty=int(not choice.text.strip()),
            truncated=int(truncated),
        )
        return Completion(choice.text, usage, truncated)
