"""A program that forks, in this process and in a child process: prints how many of them got their own replies."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpo.data.example import Example
from gpo.evaluation.program import Program, ProgramSpec
from gpo.evaluation.program_calls import OfferedModel
from gpo.models.protocol import Forwarded, Usage
from gpo.prompt import Prompt
from gpo.user_code.functions import FunctionReference


class Repeating:
    """A model that repeats what it is asked."""

    async def forward(self, route: str, body: Mapping[str, Any]) -> Forwarded:
        await asyncio.sleep(0.001)
        message = {"role": "assistant", "content": body["messages"][0]["content"]}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        reply = {"id": "1", "object": "chat.completion", "created": 0, "model": "own", "choices": [choice]}
        return Forwarded(reply, Usage(requests=1))


async def main(processes: int) -> None:
    function = FunctionReference("gateway_programs", "in_forked_children", (str(Path(__file__).parent),))
    spec = ProgramSpec(function, gateway=True, processes=processes, max_calls=1_000)
    program = Program(spec, {"own": OfferedModel(Repeating(), {})})
    response = await program.respond(Prompt("Answer."), Example("x", ("y",), row={"question": "Who?"}))
    print(f"{response.answer} of 3 children, {response.usage.requests} calls")


if __name__ == "__main__":
    for processes in (0, 1):
        asyncio.run(main(processes))
