"""Run the same tests again and again, each time in a process that has torch already.

``python prefork.py SOCKET SECONDS MODULE TEST…`` imports what the tests need of other projects, and of this one what
MODULE (a path) imports itself, which no mutant of MODULE changes; then it waits. TEST is a file of tests, an option of
pytest, or THEN before what is run if all before it passes. Whoever connects to the socket is told the exit status of
one run of the tests, by a child that imports MODULE, and what rests on it, anew. SECONDS are of CPU time: a mutant
that never ends is stopped whatever else the machine does.
"""

from __future__ import annotations

import ast
import gc
import importlib
import os
import resource
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path

HEAVY = ("torch", "numpy", "einops", "msgspec", "hypothesis.strategies", "jinja2", "rich", "pytest")
MORE = (
    "torch._dynamo",
    "transformers",
    "safetensors.torch",
    "jsonschema",
    "anyio.pytest_plugin",
    "xml.etree.ElementTree",
)
PLUGINS = (
    "pytest_benchmark.plugin",
    "xdist.plugin",
    "_hypothesis_pytestplugin",
    "_pytest.pytester",
)
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--assert=plain")
OPTIONS += ("-W", "ignore::pytest.PytestAssertRewriteWarning")  # of what is imported before
THEN = "THEN"
WAITING = 3  # limits of CPU time that may pass on the wall: a mutant may wait for what never comes
MEMORY = 16 << 30  # bytes that a mutant may ask for


def serve(path: str, seconds: int, module: Path, tests: list[str]) -> None:
    """Answer until the process is ended."""
    import_others()
    import_below(module)
    gc.freeze()  # a collection in a child would look through all of torch
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    while True:
        connection, _ = listener.accept()
        with connection, suppress(BrokenPipeError):
            connection.sendall(str(status(seconds, tests)).encode())


def import_others() -> None:
    """Import the packages of other projects."""
    sys.dont_write_bytecode = True
    for name in (*HEAVY, *MORE, *PLUGINS):
        with suppress(ImportError):
            importlib.import_module(name)
    ours = [name for name in sys.modules if name.startswith("holotype")]
    assert not ours, f"these would not be mutated: {ours}"


def import_below(module: Path) -> None:
    """Import those of this project's modules that a module imports at once, unless they import it themselves."""
    mutated = ".".join(module.with_suffix("").parts[1:])
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("holotype"):
            name = str(node.module)
            if not _imports(name, mutated):
                importlib.import_module(name)
    assert mutated not in sys.modules, "it would not be mutated"


def _imports(name: str, mutated: str) -> bool:
    """Whether the import of one module imports another, tried in a child, as no import can be taken back."""
    child = os.fork()
    if child == 0:
        importlib.import_module(name)
        os._exit(mutated in sys.modules)
    return os.waitpid(child, 0)[1] != 0


def status(seconds: int, tests: list[str]) -> int:
    """The exit status of one run of the tests; of one that a signal ended, minus that signal."""
    child = os.fork()
    if child == 0:
        os._exit(_run(seconds, tests))

    def kill(_number: int, _frame: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, kill)
    signal.alarm(WAITING * seconds)
    _, ended = os.waitpid(child, 0)
    signal.alarm(0)
    return os.waitstatus_to_exitcode(ended)


def _run(seconds: int, tests: list[str]) -> int:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2) if not os.environ.get("MUTATION_OUTPUT") else (0,):
        os.dup2(null, descriptor)
    try:
        return _first_failure(tests)
    except BaseException:  # a mutant may raise anything; it was noticed
        traceback.print_exc()
        return 99


def _first_failure(tests: list[str]) -> int:
    """The status of the first run that fails, of those that THEN parts."""
    import pytest

    left = list(tests)
    while left:
        now = left[: left.index(THEN)] if THEN in left else left
        left = left[len(now) + 1 :]
        if status := int(pytest.main([*OPTIONS, *now])):
            return status
    return 0


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
