from __future__ import annotations

import pytest
from pydantic import ValidationError

from gpo.evaluation.evaluator import Evaluation
from gpo.models.protocol import Usage
from gpo.prompt import Prompt
from gpo.score import Score
from serve.http_schemas import EvaluateRequest, score_reply


def test_a_reply_has_the_judges_costs_separately() -> None:
    by_rule = score_reply(Prompt("a"), Evaluation(Score((1.0, None)), Usage(requests=2)))
    assert (by_rule.mean, by_rule.values, by_rule.usage.requests, by_rule.judge) == (1.0, [1.0, None], 2, None)
    by_model = score_reply(Prompt("a"), Evaluation(Score((0.5,)), Usage(requests=1), Usage(requests=1, cost_usd=0.1)))
    assert by_model.judge is not None
    assert (by_model.judge.requests, by_model.judge.cost_usd) == (1, 0.1)


def test_white_space_around_a_prompt_is_removed() -> None:
    wanted = EvaluateRequest.model_validate({"task": "t", "prompt": " a\n", "prompts": ["\tb c "]})
    assert wanted.all_prompts == [Prompt("a"), Prompt("b c")]


@pytest.mark.parametrize("body", [{"prompt": " \n"}, {"prompts": ["a", "\t"]}, {"prompt": ""}])
def test_a_prompt_of_white_space_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="at least 1 character"):
        EvaluateRequest.model_validate({"task": "t", **body})
