"""Stores of MLflow: a file, and a server."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import mlflow_server
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
    """MLflow's server with a store of its own, on a free port.

    Args:
        folder: where its store is, in `mlflow.db`.
    """

    def __init__(self, folder):
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{port}"
        command = [sys.executable, mlflow_server.__file__, str(port)]
        command += [f"sqlite:///{folder}/mlflow.db", str(folder / "artifacts")]
        environment = {
            **os.environ,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        with (folder / "log.txt").open("w") as log:
            self._program = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )

    def start(self):
        """Start it."""
        self._program.stdin.write("\n")
        self._program.stdin.flush()
        self._pid = int(self._program.stdout.readline())
        return self

    def wait(self):
        """Wait until it answers."""
        for _ in range(1200):
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
            except OSError:
                time.sleep(0.1)
            else:
                return self
        raise AssertionError((self._folder / "log.txt").read_text())

    def kill(self):
        """Kill it."""
        os.kill(self._pid, signal.SIGKILL)

    def close(self):
        """Kill it, and the program that starts it."""
        self.kill()
        with self._program:
            self._program.kill()


@pytest.fixture(scope="session")
def server(store, tmp_path_factory):
    """Return a server, which is started once."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(store.removeprefix("sqlite:///"), folder)
    server = Server(folder).start()
    yield server.wait()
    server.close()
