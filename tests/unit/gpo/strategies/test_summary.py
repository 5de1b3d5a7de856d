from __future__ import annotations

from dataclasses import replace

from gpo.models.protocol import Sampling
from gpo.strategies.summary import RunningSummary
from gpo.testing.fakes import FakeModel
from gpo.testing.samples import candidate, trajectory
from gpo.trajectory import Direction, Spending, Trajectory

ONE_STEP = trajectory(candidate("Think.", 0.5), [candidate("Think hard.", 0.2), candidate("Reason.", 0.9)])


def directed(search: Trajectory, **direction: str) -> Trajectory:
    """The search, its last step made from this direction."""
    last = replace(search.steps[-1], direction=Direction(**direction))
    return replace(search, steps=(*search.steps[:-1], last))


async def summary(search: Trajectory, reply: str) -> tuple[str | None, str]:
    """The resulting summary, and the request."""
    model = FakeModel.scripted([reply])
    found = await RunningSummary(model=model, sampling=Sampling()).summarize(search, seed=1)
    assert found.spending.optimizer.requests == 1
    return found.text, model.calls[0][0][0]["content"]


async def test_the_first_step_has_no_summary() -> None:
    model = FakeModel.scripted([])
    found = await RunningSummary(model=model, sampling=Sampling()).summarize(Trajectory(candidate("a")), seed=0)
    assert (found.text, found.spending) == (None, Spending())


async def test_the_last_step_is_added_to_the_summary() -> None:
    text, asked = await summary(
        directed(ONE_STEP, summary="Short ones fail.", reflection="Too short."), "Long ones win."
    )
    assert text == "Long ones win."
    for part in ("Short ones fail.", "Too short.", "Prompt: Think.\nScore: 50.0", "Prompt: Think hard.\nScore: 20.0"):
        assert part in asked
    assert asked.index("Think hard.") < asked.index("Reason.")


async def test_the_summary_compares_with_the_prompt_before_the_last_step() -> None:
    search = trajectory(candidate("Think.", 0.5), [candidate("Reason.", 0.9)], [candidate("Answer.", 0.1)])
    _, asked = await summary(search, "…")
    assert "before the last step\n\nPrompt: Reason." in asked
    assert "Think." not in asked


async def test_the_old_summary_is_kept_if_a_call_returns_none() -> None:
    text, _ = await summary(directed(ONE_STEP, summary="Short ones fail."), " ")
    assert text == "Short ones fail."
