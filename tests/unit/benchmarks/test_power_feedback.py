from __future__ import annotations

from statistics import fmean

import pytest

from benchmarks.power.feedback import MAX_STEPS, NUM_REQUIREMENTS, TOPICS, Found, Requirements, found


@pytest.fixture(scope="module")
def searches() -> dict[str, list[Found]]:
    return {form: [found(form, seed) for seed in range(3)] for form in ("score", "score_reflection", "feedback")}


def test_feedback_needs_at_most_half_of_the_steps_of_scores(searches: dict[str, list[Found]]) -> None:
    steps = {form: fmean(search.steps for search in some) for form, some in searches.items()}
    assert NUM_REQUIREMENTS <= steps["feedback"] <= steps["score"] / 2
    assert steps["score"] < MAX_STEPS


def test_feedback_needs_no_call_for_a_reflection(searches: dict[str, list[Found]]) -> None:
    # Each of the 8 candidates of a step is one call.
    assert all(search.optimizer_calls == 8 * search.steps for search in searches["feedback"])
    assert all(search.optimizer_calls == 9 * search.steps for search in searches["score_reflection"])


def test_the_true_score_is_the_share_of_stated_requirements() -> None:
    requirements = Requirements.of(0)
    other = next(topic for topic in TOPICS if topic not in requirements.topics)
    first, second, *_ = requirements.topics
    assert requirements.met(f"Write. Mind the {first}. Mind the {second}. Mind the {other}.") == 2 / 6
    assert Requirements.of(0) == requirements != Requirements.of(1)
