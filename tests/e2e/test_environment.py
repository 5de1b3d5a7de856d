from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.simulated_endpoint import Behaviour, SimulatedEndpoint

if TYPE_CHECKING:
    from tests.e2e.conftest import Gpo, WriteConfig

KEY = "canary-77aa01"


def test_the_usual_variables_alone_name_endpoint_and_key(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(api_key=KEY)
    config = write_config(tmp_path, None)
    env = {"OPENAI_BASE_URL": endpoint.base_url, "OPENAI_API_KEY": KEY}
    finished = gpo("evaluate", config, cwd=tmp_path, env=env)
    assert finished.code == 0, finished.stderr
    assert {record.status for record in endpoint.requests} == {200}


def test_a_base_url_and_a_named_variable_go_before_the_usual_ones(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(api_key=KEY, models=("my-model",))
    mine = {"model": "my-model", "api_key_env": "MY_KEY"}
    config = write_config(tmp_path, endpoint.base_url, models={"task": mine})
    env = {"MY_KEY": KEY, "OPENAI_API_KEY": "of-another", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    finished = gpo("evaluate", config, cwd=tmp_path, env=env)
    assert finished.code == 0, finished.stderr
    assert {record.status for record in endpoint.requests} == {200}


def test_a_key_file_goes_before_every_variable(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    endpoint.behaviour = Behaviour(api_key=KEY)
    (tmp_path / "key").write_text(f"{KEY}\n", encoding="utf-8")
    config = write_config(tmp_path, endpoint.base_url, models={"task": {"api_key_file": "key"}})
    finished = gpo("evaluate", config, cwd=tmp_path, env={"OPENAI_API_KEY": "of-another"})
    assert finished.code == 0, finished.stderr
    assert {record.status for record in endpoint.requests} == {200}


def test_an_endpoint_that_asks_for_no_key_needs_none(
    endpoint: SimulatedEndpoint, gpo: Gpo, write_config: WriteConfig, tmp_path: Path
) -> None:
    finished = gpo("evaluate", write_config(tmp_path, endpoint.base_url), cwd=tmp_path)
    assert finished.code == 0, finished.stderr
