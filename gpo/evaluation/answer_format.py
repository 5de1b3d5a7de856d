"""How a prompt and an example become a conversation with the task model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gpo.data.example import Example
from gpo.evaluation.prompt_template import filled_messages
from gpo.models.protocol import Message
from gpo.prompt import Prompt


class Position(StrEnum):
    """Position of the prompt relative to the example's input.

    ``BEFORE_QUESTION`` separates the prompt from the question; ``QUESTION_BEGIN`` puts it at the beginning of the
    question. They differ if the question is marked "Q:". With ``TEMPLATE``, the prompt contains the input: see
    ``gpo.evaluation.prompt_template``. With ``PROGRAM``, a program of the user decides.
    """

    QUESTION_END = "question_end"
    QUESTION_BEGIN = "question_begin"
    BEFORE_QUESTION = "before_question"
    ANSWER_BEGIN = "answer_begin"
    SYSTEM = "system"
    TEMPLATE = "template"
    PROGRAM = "program"


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """Format of the conversation with the task model.

    Attributes:
        position: position of the prompt.
        rounds: 1 judges the first answer; 2 asks a follow-up question for the bare answer and judges that.
        question_marks: mark question and answer with "Q:" and "A:". ``ANSWER_BEGIN`` always marks them, since the
            prompt follows the "A:". A ``TEMPLATE`` contains what marks it needs.
        demonstrations: solved examples, shown before the question as separate turns with the same prompt, and answered
            with their target. With ``TEMPLATE``, only the message of the user is repeated, filled in for each.
    """

    position: Position = Position.QUESTION_END
    rounds: int = 1
    question_marks: bool = False
    demonstrations: tuple[Example, ...] = ()

    def messages(self, prompt: Prompt, example: Example) -> list[Message]:
        """The conversation that asks for an answer to the example.

        Raises:
            KeyError: the prompt is a template with another placeholder than the task's initial prompt.
        """
        *system, question = self._asked(prompt, example)
        turns: list[Message] = []
        for shown in self.demonstrations:
            turns += [self._asked(prompt, shown)[-1], {"role": "assistant", "content": shown.target}]
        return [*system, *turns, question]

    def _asked(self, prompt: Prompt, example: Example) -> list[Message]:
        """The message of the user, after the system message if there is one."""
        if self.position is Position.TEMPLATE:
            return filled_messages(prompt.text, dict(example.placeholder_texts))
        question: Message = {"role": "user", "content": self._turn(prompt.text, example.input)}
        return (
            [{"role": "system", "content": prompt.text}, question] if self.position is Position.SYSTEM else [question]
        )

    def _turn(self, instruction: str, question: str) -> str:
        match self.position:
            case Position.SYSTEM | Position.TEMPLATE:
                return self._marked(question)
            case Position.QUESTION_END:
                return self._marked(f"{question}\n{instruction}")
            case Position.QUESTION_BEGIN | Position.PROGRAM:
                return self._marked(f"{instruction}\n{question}")
            case Position.BEFORE_QUESTION:
                return f"{instruction}\n\n{self._marked(question)}"
            case Position.ANSWER_BEGIN:
                return f"Q: {question}\nA: {instruction}"

    def _marked(self, question: str) -> str:
        return f"Q: {question}\nA:" if self.question_marks else question
