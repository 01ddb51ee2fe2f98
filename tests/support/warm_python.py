"""A program that imports torch once and forks a process for each program that it is to run.

A program that imports torch takes a second to start; forked from this one, it starts at once. Each
line of the standard input is a request in JSON: `path` and `arguments` of the program, further
environment `variables`, and the files `out` and `err` for what it prints. The answer is a line with
its exit status.
"""

import json
import os
import runpy
import sys
import traceback

import torch  # noqa: F401  (the forked processes have it)


def run_program(path, arguments, variables, out, err):
    """Run a program as Python does, and return its exit status."""
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), number)
    os.environ.update(variables)
    sys.argv = [path, *arguments]
    sys.path[0] = os.path.dirname(path)
    status = 0
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as error:
        status = error.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def main():
    """Fork a process for each request."""
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            os._exit(run_program(**json.loads(line)))
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    os._exit(0)  # destroying the modules of torch takes a second


if __name__ == "__main__":
    main()
