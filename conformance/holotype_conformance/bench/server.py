"""The side of a benchmark that runs the code: it answers one line with one line, in this process or in another."""

from __future__ import annotations

import traceback
import warnings
from typing import Any

import torch

from holotype_conformance.bench.bench import Bench
from holotype_conformance.bench.kernels import KernelBench
from holotype_conformance.bench.models import ModelBench
from holotype_conformance.bench.protocol import PROTOCOL, Answer, AnyAsk, Open, Opened, Refused
from holotype_conformance.judge.guard import CandidateUnusable
from holotype_conformance.judge.importing import TargetError
from holotype_conformance.judge.property import Violation
from holotype_conformance.judge.records import encodable
from holotype_conformance.run.session import RequestError, environment


class Server:
    """Answers every line, whatever happens."""

    def __init__(self) -> None:
        self.bench: Bench[Any, Any] | None = None

    def answer(self, ask: AnyAsk) -> Answer:
        """One answer to one line; what goes wrong is an answer too."""
        try:
            if isinstance(ask, Open):
                return self._open(ask)
            assert self.bench is not None, "open comes first"
            return self.bench.answer(ask)
        except (TargetError, RequestError) as error:
            return _refused("bad-input", str(error))
        except CandidateUnusable as error:
            return _refused("unrunnable", str(error))
        except Violation as violation:
            return _refused("wrong", violation.summary)
        except Exception as error:
            return _refused("broken", f"{type(error).__name__}: {error}")

    def processor_time(self) -> None:
        """A process does not read its own clock in the middle of its work."""

    def _open(self, ask: Open) -> Opened:
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        self.bench = _opened(ask)
        where = environment(ask.device)
        return Opened(protocol=PROTOCOL, title=encodable(self.bench.title), environment=where)


def _opened(ask: Open) -> Bench[Any, Any]:
    return KernelBench(ask) if ask.kind == "attention" else ModelBench(ask)


def _refused(kind: Any, message: str) -> Refused:
    return Refused(kind=kind, message=encodable(message), details=encodable(traceback.format_exc()))
