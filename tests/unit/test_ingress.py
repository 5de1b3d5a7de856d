from __future__ import annotations

from gpo.evaluation import Evaluation
from gpo.models import Usage
from gpo.prompt import Prompt
from gpo.score import Score
from serve.ingress import score_reply


def test_a_reply_tells_the_judge_s_costs_apart() -> None:
    by_rule = score_reply(Prompt("a"), Evaluation(Score((1.0, None)), Usage(requests=2)))
    assert (by_rule.mean, by_rule.values, by_rule.usage.requests, by_rule.judge) == (1.0, [1.0, None], 2, None)
    by_model = score_reply(Prompt("a"), Evaluation(Score((0.5,)), Usage(requests=1), Usage(requests=1, cost_usd=0.1)))
    assert by_model.judge is not None
    assert (by_model.judge.requests, by_model.judge.cost_usd) == (1, 0.1)
