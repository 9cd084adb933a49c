"""Help, versions, exit codes, and what a failure prints."""

import json
import os
import subprocess
import sys
import warnings

import pytest

import trilemma
from trilemma.errors import CheckFailedError, InfeasibleError, UnsupportedError

COMMANDS = ("plan", "predict", "simulate", "cost", "workload", "catalogue", "doctor")
HEAVY = ("numpy", "numba", "pydantic", "yaml", "rich", "pyarrow")


def program(*arguments, **options):
    command = [sys.executable, "-c", "from trilemma.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(trilemma_says, command):
    code, out, err = trilemma_says(command, "--help")
    assert (code, err) == (0, "")
    assert "Usage: trilemma" in out


def test_help_imports_nothing_heavy():
    listing = "import sys, json; from trilemma.cli.frame import run; run(['--help']); print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    modules = json.loads(done.stdout.splitlines()[-1])
    assert [name for name in modules if name.split(".")[0] in HEAVY] == []
    assert all(command in done.stdout for command in COMMANDS)


def test_version(trilemma_says):
    assert trilemma_says("--version") == (0, f"trilemma {trilemma.__version__}\n", "")


@pytest.mark.parametrize("arguments", [("plna",), ("plan",), ("plan", "--colour"), ("doctor", "-o", "xml")])
def test_usage_errors_exit_2_with_a_hint(trilemma_says, arguments):
    code, out, err = trilemma_says(*arguments)
    assert (code, out) == (2, "")
    assert "Error:" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "expected"),
    [(InfeasibleError("no"), 3), (CheckFailedError("no"), 4), (UnsupportedError("no"), 5), (KeyboardInterrupt(), 130)],
)
def test_failures_have_their_exit_code_and_no_traceback(trilemma_says, api, monkeypatch, error, expected):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(api, "workload", fail)
    code, out, err = trilemma_says("workload", "azure_2023_conv")
    assert (code, out) == (expected, "")
    assert err in ("error: no\n", "interrupted\n")


def test_a_bug_is_called_one_and_only_it_has_a_traceback(trilemma_says, api, monkeypatch):
    monkeypatch.setattr(api, "workload", lambda *_, **__: 1 / 0)
    code, out, err = trilemma_says("workload", "azure_2023_conv")
    assert (code, out) == (1, "")
    assert "ZeroDivisionError" in err
    assert "this is a bug in trilemma" in err


def test_notices_are_a_line_on_stderr_and_quiet_drops_them(trilemma_says, api, monkeypatch):
    def noticing(*_, **__):
        warnings.warn("3 lines were out of order and have been sorted", UserWarning, stacklevel=1)
        return {"requests": 1}

    monkeypatch.setattr(api, "workload", noticing)
    assert trilemma_says("workload", "x")[2] == "warning: 3 lines were out of order and have been sorted\n"
    assert trilemma_says("workload", "x", "--quiet")[2] == ""


def test_a_reader_that_leaves_early_is_no_failure():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", "from trilemma.cli import main; main()", "--help"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
