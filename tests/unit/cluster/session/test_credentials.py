from __future__ import annotations

from pathlib import Path

import pytest

from cluster.cli.options import folder_at
from cluster.cli.submit import submit
from cluster.config.loading import validate
from cluster.config.secrets import holds_credentials
from cluster.session.ray_environment import resolve_address
from gpo.errors import ConfigError
from tests.unit.cluster.config.test_config import raw

SECRET = "canary-pw"


@pytest.mark.parametrize(
    "address",
    [
        f"ftp://me:{SECRET}@host/runs",
        f"ftp://{SECRET}@host/runs",
        f"ftp://me:{SECRET}/with/slashes@host/runs",
        f"s3://AKIA:{SECRET}@bucket/runs",
        f"simplecache::ftp://me:{SECRET}@host:21/runs",
        f"abfs://container:{SECRET}@account/runs",
        f"http://:{SECRET}@host",
    ],
)
def test_an_address_with_a_user_or_password_is_refused_everywhere_and_never_shown(address: str, tmp_path: Path) -> None:
    assert holds_credentials(address)
    refusals = []
    for refused in (
        lambda: validate(raw(run={"dir": address}), tmp_path),
        lambda: folder_at("--run-dir", address),
        lambda: submit(tmp_path / "config.yaml", run_dir=address),
        lambda: resolve_address(address),
    ):
        with pytest.raises(ConfigError, match="holds a user name or password") as caught:
            refused()
        refusals.append(caught.value)
    assert [refusal.field for refusal in refusals] == ["run.dir", "--run-dir", "--run-dir", "--address"]
    assert SECRET not in "".join(map(repr, refusals))
    with pytest.raises(ConfigError, match="holds a user name or password"):
        resolve_address(f"me:{SECRET}@127.0.0.1:6379")


@pytest.mark.parametrize(
    "location",
    [
        "runs",
        "/data/me@home/a:b@c",
        "s3://bucket/runs@noon",
        "s3://bucket/a:b@c",
        "ftp://host:2121/runs@noon",
        "abfs://container@account.dfs.core.windows.net/runs",
        "memory://runs",
    ],
)
def test_other_locations_are_accepted(location: str, tmp_path: Path) -> None:
    assert not holds_credentials(location)
    assert validate(raw(run={"dir": location}), tmp_path).run.dir == location
