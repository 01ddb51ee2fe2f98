"""A program that imports MLflow's server once, and forks one for each line of its standard input.

`mlflow server` imports it for seconds in two processes whenever it starts. The arguments are the
port, the URI of the store and the folder of artifacts; the answer is the number of the process.
"""

import os
import signal
import sys


def main(port, store, artifacts):
    """Fork a process for each line, with the variables that `mlflow server` sets."""
    import uvicorn
    from mlflow.server import constants
    from mlflow.server.fastapi_app import app

    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = store
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = "mlflow-artifacts:/"
    os.environ[constants.ARTIFACTS_DESTINATION_ENV_VAR] = artifacts
    os.environ[constants.SERVE_ARTIFACTS_ENV_VAR] = "true"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # what is killed is gone
    for _ in sys.stdin:
        pid = os.fork()
        if not pid:
            uvicorn.run(app, port=int(port), log_level="warning")
            os._exit(0)
        print(pid, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
