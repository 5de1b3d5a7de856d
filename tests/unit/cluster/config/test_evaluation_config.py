from __future__ import annotations

import pytest
from pydantic import ValidationError

from cluster.config.root import EvaluationConfig, RacingConfig
from gpo.scoring.candidates import FullScoring
from gpo.scoring.racing import Racing


def test_candidates_are_scored_in_full_unless_a_race_is_asked_for() -> None:
    assert EvaluationConfig().build_scoring(100, seed=1) == FullScoring()
    assert EvaluationConfig(racing=None).build_scoring(100, seed=1) == FullScoring()


def test_a_race_is_built_as_configured() -> None:
    config = EvaluationConfig(max_unscored=0.3, racing=RacingConfig(block=7, alpha=0.01))
    assert config.build_scoring(90, seed=4) == Racing(num_examples=90, block=7, alpha=0.01, max_unscored=0.3, seed=4)
    assert isinstance(EvaluationConfig.model_validate({"racing": {}}).build_scoring(9, seed=0), Racing)


@pytest.mark.parametrize("racing", [{"block": 1}, {"alpha": 0}, {"alpha": 1}, {"blok": 5}, 5])
def test_a_race_that_cannot_be_is_refused(racing: object) -> None:
    with pytest.raises(ValidationError):
        EvaluationConfig.model_validate({"racing": racing})
