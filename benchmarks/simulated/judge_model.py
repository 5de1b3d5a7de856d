"""The simulated judge: full marks where the answer holds a reference, none where it does not."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gpo.models.protocol import Message

# These patterns read the messages of ``gpo.evaluation.metrics.judge``, and change with them.
_ANSWER = re.compile(r"<answer>\n(.*)\n</answer>", re.DOTALL)
_REFERENCE = re.compile(r"<reference>\n(.*?)\n</reference>", re.DOTALL)
_SCALE = re.compile(r"whole number from 0 to (\d+):\nVerdict: N\Z")


def verdict(messages: Sequence[Message]) -> str | None:
    """A reason and a verdict; ``None`` where the conversation does not ask for one.

    Case does not count, and neither does white space around a reference.
    """
    request = messages[-1]["content"]
    scale, answer = _SCALE.search(request), _ANSWER.search(request)
    if scale is None or answer is None:
        return None
    references = [reference.strip().lower() for reference in _REFERENCE.findall(request)]
    if any(reference and reference in answer[1].lower() for reference in references):
        return f"The answer agrees with a reference.\nVerdict: {scale[1]}"
    return "The answer agrees with no reference.\nVerdict: 0"
