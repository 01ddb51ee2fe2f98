"""An environment without keys, in which wandb is offline."""

import os

import pytest

os.environ["WANDB_ERROR_REPORTING"] = "false"  # read when wandb is imported


@pytest.fixture(autouse=True)
def _no_keys(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def settings():
    """Return settings without what wandb finds out about the machine, which takes time."""
    return {"x_disable_stats": True, "x_disable_meta": True, "x_save_requirements": False}
