"""Stores of MLflow: a file, and a server."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from mlflow import MlflowClient


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """Return the URI of a store in a file, whose tables take seconds to create."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    MlflowClient(uri).create_experiment("Default again", (folder / "mlartifacts").as_uri())
    return uri


class Server:
    """A real `mlflow server` with its own store, on a free port."""

    def __init__(self, folder):
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self):
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self._port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self._folder}/mlflow.db"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        environment = {
            **os.environ,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        with (self._folder / "log.txt").open("w") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        return self

    def wait(self):
        """Wait until it answers."""
        for _ in range(1200):
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
            except OSError:
                time.sleep(0.1)
                assert self._process.poll() is None, (self._folder / "log.txt").read_text()
            else:
                return self
        raise AssertionError((self._folder / "log.txt").read_text())

    def kill(self):
        """Kill it, and the workers that it has started."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture(scope="session")
def server(store, tmp_path_factory):
    """Return a server, which is started once."""
    server = Server(tmp_path_factory.mktemp("server")).start()
    yield server.wait()
    server.kill()
