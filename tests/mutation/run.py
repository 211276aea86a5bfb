"""Mutate modules of this project and run their nearest tests on each mutant: ``python tests/mutation/run.py --help``.

Nothing in the checkout is touched: the tracked files are copied, and mutants live in the copy. What is done is kept in
a session for each module, so that a run that was stopped goes on where it was, and a shard can be run elsewhere.
"""

from __future__ import annotations

import argparse
import ast
import os
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cosmic_ray.plugins
from cosmic_ray.commands.init import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkItem, WorkResult

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))
from operators import OPERATORS  # noqa: E402  (of this folder)

# One replacement of an operator is as good as a dozen: the rest fall to the same tests.
BINARY = {
    "Add_Sub",
    "Sub_Add",
    "Mul_FloorDiv",
    "Mul_Add",
    "FloorDiv_Mul",
    "Div_Mul",
    "Mod_Mul",
    "Pow_Mul",
}
BINARY |= {"BitOr_BitAnd", "BitAnd_BitOr", "BitXor_BitOr", "LShift_RShift", "RShift_LShift"}
COMPARED = {
    "Lt_LtE",
    "Lt_GtE",
    "LtE_Lt",
    "LtE_Gt",
    "Gt_GtE",
    "Gt_LtE",
    "GtE_Gt",
    "GtE_Lt",
    "Eq_NotEq",
}
COMPARED |= {"NotEq_Eq", "Is_IsNot", "IsNot_Is", "In_NotIn", "NotIn_In"}
UNARY = {"USub_UAdd", "Delete_Not", "Delete_USub", "Delete_Invert"}
KEPT = {f"core/ReplaceBinaryOperator_{each}" for each in BINARY}
KEPT |= {f"core/ReplaceComparisonOperator_{each}" for each in COMPARED}
KEPT |= {f"core/ReplaceUnaryOperator_{each}" for each in UNARY}

PATIENCE = (
    4.0  # CPU time of a mutant, in runs of the tests on the code as it is; it counts whole seconds
)
CLIENT = (
    "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
    " sys.exit(s.makefile().read() != '0')"
)


def main() -> int:
    """The exit status: 1 if a survivor is not explained."""
    arguments = _arguments()
    cosmic_ray.plugins.OPERATOR_PROVIDERS["holotype"] = OPERATORS
    modules = tomllib.loads((HERE / "modules.toml").read_text())
    chosen = {
        module: tests
        for module, tests in modules.items()
        if not arguments.module or any(part in module for part in arguments.module)
    }
    arguments.sessions.mkdir(parents=True, exist_ok=True)
    unexplained = 0
    for module, tests in chosen.items():
        path = arguments.sessions / f"{module.replace('/', '.')}.sqlite"
        with use_db(str(path), WorkDB.Mode.create) as session:
            if not arguments.report:
                _work_on(session, module, tests, arguments)
            unexplained += _tell(session, module)
    return 1 if unexplained else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module", nargs="*", help="part of a module's path, as in modules.toml")
    parser.add_argument("--sessions", type=Path, default=ROOT / ".mutation", help="a folder")
    parser.add_argument("--shard", default="1/1", help="1/4: the first quarter of the mutants")
    parser.add_argument("--minutes", type=float, default=1e9, help="for each module")
    parser.add_argument("--again", action="store_true", help="try the survivors again")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the tests")
    return parser.parse_args()


# Mutants ----------------------------------------------------------------------------------------------------------


def _work_on(session: WorkDB, module: str, tests: list[str], arguments: argparse.Namespace) -> None:
    with _copied(arguments.sessions) as copy:
        os.chdir(copy)
        if not session.num_work_items:
            init([Path(module)], session, {})
            _leave_out(session, Path(module))
        if arguments.again:
            _reopen_survivors(session)
        which, shards = map(int, arguments.shard.split("/"))
        left = [
            item
            for item in session.pending_work_items
            if int(item.job_id, 16) % shards == which - 1
        ]
        if not left:
            return
        end = time.monotonic() + 60 * arguments.minutes
        with _tests(copy, module, tests, arguments.python) as command:
            for number, item in enumerate(left, start=1):
                if time.monotonic() > end:
                    break
                result = mutate_and_test(item.mutations, command, timeout=3600.0)
                session.set_result(item.job_id, result)
                print(f"{number}/{len(left)} {_where(item)}: {_said(result)}", flush=True)


@contextmanager
def _copied(beside: Path) -> Iterator[Path]:
    """A copy of the files of the checkout that git knows, without compiled modules, as these would be believed."""
    copy = beside.resolve() / f"copy-{os.getpid()}"
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    try:
        yield copy
    finally:
        os.chdir(ROOT)
        shutil.rmtree(copy)


@contextmanager
def _tests(copy: Path, module: str, tests: list[str], python: str) -> Iterator[str]:
    """The command that runs the tests once; it fails if they fail."""
    paths = [str(copy / part) for part in ("spec", "reference", "conformance")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    socket = Path("/tmp") / f"mutation-{os.getpid()}.socket"  # their names may not be long
    command = f"{sys.executable} -I -S -c {shlex.quote(CLIENT)} {socket}"

    def serve(seconds: int) -> subprocess.Popen[bytes]:
        socket.unlink(missing_ok=True)
        words = [python, str(HERE / "prefork.py"), str(socket), str(seconds), module, *tests]
        server = subprocess.Popen(words, cwd=copy, env=environment)
        while not socket.exists() and server.poll() is None:
            time.sleep(0.1)
        time.sleep(0.1)
        return server

    server = serve(3600)
    try:
        seconds = _timed(command, server)
        print(f"the tests take {seconds:.1f} s of CPU time", flush=True)
        server.terminate()
        server.wait()
        server = serve(round(PATIENCE * seconds) + 10)
        yield command
    finally:
        server.terminate()
        server.wait()
        socket.unlink(missing_ok=True)


def _timed(command: str, server: subprocess.Popen[bytes]) -> float:
    """Seconds of CPU time that the tests take on the code as it is, on which they must pass."""
    before = _of_children(server)
    if subprocess.run(shlex.split(command), check=False).returncode:
        raise SystemExit("the tests fail on the code as it is; MUTATION_OUTPUT=1 shows why")
    return _of_children(server) - before


def _of_children(server: subprocess.Popen[bytes]) -> float:
    """Seconds of CPU time that the ended children of a process have had."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def _leave_out(session: WorkDB, module: Path) -> None:
    """Skip replacements that tell nothing new, and what is no code: annotations, of which none is looked at."""
    notes = list(_annotations(ast.parse(module.read_text())))
    for item in list(session.pending_work_items):
        (mutation,) = item.mutations
        many = "Replace" in mutation.operator_name and "Operator_" in mutation.operator_name
        redundant = many and mutation.operator_name not in KEPT
        noted = any(first <= mutation.start_pos <= last for first, last in notes)
        if redundant or noted:
            skipped = WorkResult(output="left out", worker_outcome=WorkerOutcome.SKIPPED)
            session.set_result(item.job_id, skipped)


def _annotations(tree: ast.Module) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Where annotations begin and end, in functions, classes and modules, and aliases of types."""
    for node in ast.walk(tree):
        noted: list[Any] = []
        match node:
            case ast.arg(annotation=annotation) if annotation:
                noted = [annotation]
            case ast.FunctionDef(returns=returns) if returns:
                noted = [returns]
            case ast.AnnAssign(annotation=annotation):
                noted = [annotation]
            case _:
                pass
        for each in noted:
            yield (each.lineno, each.col_offset), (each.end_lineno, each.end_col_offset)


def _reopen_survivors(session: WorkDB) -> None:
    survivors = {job for job, result in session.results if _survived(result)}
    items = {item.job_id: item for item in session.work_items}
    for job in survivors:
        session.set_result(job, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))
    _forget(session, survivors & set(items))


def _forget(session: WorkDB, jobs: set[str]) -> None:
    """Take results back; the session has no call for it."""
    from cosmic_ray.work_db import WorkResultStorage

    with session._session_maker.begin() as database:
        for job in jobs:
            database.delete(database.get(WorkResultStorage, job))


# Results ----------------------------------------------------------------------------------------------------------


def _tell(session: WorkDB, module: str) -> int:
    """Print what became of the mutants of a module; how many survivors nothing explains."""
    items = {item.job_id: item for item in session.work_items}
    results = dict(session.results)
    told = {job: each for job, each in results.items() if each.worker_outcome != "skipped"}
    counts = Counter(_said(each) for each in told.values())
    mutants = len(items) - (len(results) - len(told))
    print(f"\n{module}: {mutants} mutants, {mutants - len(told)} not run, {dict(counts)}")
    survivors = sorted((items[job] for job, each in told.items() if _survived(each)), key=_where)
    explained = tomllib.loads((HERE / "survivors.toml").read_text()).get(module, {})
    unexplained = 0
    for item in survivors:
        change = _change(results[item.job_id].diff or "")
        why = next((why for key, why in explained.items() if key in change), None)
        unexplained += why is None
        print(f"  {_where(item)}\n{change}\n    {why or 'NOT EXPLAINED'}")
    return unexplained


def _survived(result: WorkResult) -> bool:
    return result.test_outcome == TestOutcome.SURVIVED


def _said(result: WorkResult) -> str:
    if result.test_outcome is not None:
        return str(result.test_outcome.value)
    return str(result.worker_outcome.value)


def _where(item: WorkItem) -> str:
    (mutation,) = item.mutations
    line, column = mutation.start_pos
    return f"{line:4}:{column:<3} {mutation.definition_name} {mutation.operator_name}"


def _change(diff: str) -> str:
    lines = [
        line for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")
    ]
    return "\n".join(f"    {line}" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
