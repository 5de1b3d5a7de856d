"""Thoughts are no answer: one function separates them, for everybody who reads a reply."""

from __future__ import annotations

import pytest

from gpo.models.thinking import answer_in


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("positive", "positive"),
        ("<think>It could be negative.</think>\npositive", "positive"),
        ("<THINKING>\nnegative?\n</THINKING>\n\npositive", "positive"),
        ("<thought>negative?</thought>positive", "positive"),
        ("[THINK]negative?[/THINK]positive", "positive"),
        ("◁think▷negative?◁/think▷positive", "positive"),
        ("<|begin_of_thought|>no<|end_of_thought|>\npositive", "positive"),
        ("<think>\n\n</think>\n\npositive", "positive"),
        ("<think>one</think><think>two</think>positive", "positive"),
        ("negative? no.\n</think>\n\npositive", "positive"),
        ("<think>a nested <think>thought</think> goes on</think>positive", "positive"),
        ("Okay.\n<think>\nnegative?\n</think>\npositive", "Okay.\n\npositive"),
        (
            "<|channel|>analysis<|message|>No.<|end|><|start|>assistant<|channel|>final<|message|>positive<|return|>",
            "positive",
        ),
        ("analysisIs it negative? No.assistantfinalpositive", "positive"),
        # A tag in the middle of a sentence is what the sentence speaks of.
        ("Reason between <think> and </think>, then answer.", "Reason between <think> and </think>, then answer."),
        ("analysis", "analysis"),
        ("", ""),
    ],
)
def test_the_answer_is_what_follows_the_thoughts(reply: str, answer: str) -> None:
    assert answer_in(reply) == answer


@pytest.mark.parametrize(
    "reply",
    [
        "<think>16 - 3 - 4 = 9, and times 2 that is 18, but wait",
        "Hm.\n[THINK]not done",
        "<think>one</think>\n<think>two",
        "<|channel|>analysis<|message|>The answer is",
        "analysisThe answer is 9, or",
    ],
)
def test_unfinished_thoughts_are_no_answer(reply: str) -> None:
    assert answer_in(reply) is None


@pytest.mark.parametrize("piece", ["<think>\n", "x</think>", "<think>", "a <think> b </think> ", "<|channel|>"])
def test_hostile_replies_take_linear_time(piece: str) -> None:
    answer_in(piece * (100_000 // len(piece)))
