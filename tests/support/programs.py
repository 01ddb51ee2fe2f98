"""Programs that run in an interpreter of their own."""

import subprocess
import sys


def output_of(*command, **options):
    """Run a command that has to succeed, and return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python_output(code, **options):
    """Run Python code in a new interpreter, and return what it printed."""
    return output_of(sys.executable, "-c", code, **options)
