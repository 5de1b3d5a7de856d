"""Scoring functions as a user would write them."""


def equal(answer: str, targets: tuple[str, ...], question: str) -> bool:
    """Whether the answer is one of the targets."""
    return answer in targets


def last_line(answer: str, question: str) -> str:
    """The last line of the answer."""
    return answer.rpartition("\n")[2]
