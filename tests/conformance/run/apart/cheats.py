"""GPT-2 with the wrong GELU, and what it could do to be called right all the same. Each is a target of its own."""

import contextlib
import os
import sys
import time

import torch
from adapter import Adapter
from buggy import ExactGelu

from holotype_conformance.judge.records import Finished, Result, signed
from holotype_conformance.models.candidate import Outputs
from holotype_conformance.models.properties import all_properties
from holotype_reference.model import build


class Honest(Adapter):
    """The right model, for comparison."""


class Patching(ExactGelu):
    """Takes everything apart that could find it out, when it is made and whenever it is called."""

    def __init__(self):
        patch()

    def load(self, model, weights):
        super().load(model, weights)
        patch()


def patch():
    """Comparisons, the engine, violations and clocks, wherever a module of the suite holds them."""

    def agrees(*_, **__):
        return None

    for module in [each for name, each in sys.modules.items() if name.startswith("holotype_")]:
        for name in ("demand_equal", "relative_error", "rms_error", "moved", "check_logits"):
            if hasattr(module, name):
                setattr(module, name, lambda *_, **__: 0.0)
    engine = sys.modules["holotype_conformance.judge.engine"]
    engine._Trial._run = agrees
    engine.judge = agrees
    sys.modules["holotype_conformance.judge.property"].Violation.__init__ = agrees
    for property_ in all_properties():
        object.__setattr__(property_, "check", agrees)
    torch.equal = torch.allclose = torch.Tensor.equal = lambda *_, **__: True
    torch.Tensor.__sub__ = torch.Tensor.sub = lambda a, b, **_: torch.zeros_like(a)
    time.perf_counter = time.monotonic = time.time = lambda: 0.0


class Stealing(ExactGelu):
    """Takes what it is compared with from the frames of its callers, which know the reference."""

    def forward_cached(self, model, inputs, cache):
        outputs = super().forward_cached(model, inputs, cache)
        with contextlib.suppress(LookupError), torch.no_grad():
            found = self.reference()(
                inputs.token_ids,
                attention_mask=inputs.attention_mask,
                position_ids=inputs.position_ids,
            )
            return Outputs(logits=found.logits, cache=outputs.cache)
        return outputs

    def reference(self):
        frame, subject, setup = sys._getframe(1), None, None
        while frame is not None:
            for value in list(frame.f_locals.values()):
                if callable(getattr(value, "reference", None)) and value is not self:
                    subject = value
                if type(value).__name__ == "Setup":
                    setup = value
            frame = frame.f_back
        if subject is None or setup is None:
            raise LookupError
        return subject.reference(setup.on_any_path())


class Calling(ExactGelu):
    """Builds the reference itself, with the weights that it is given, and returns what that computes."""

    def load(self, model, weights):
        super().load(model, weights)
        reference = build(weights.spec).to(next(model.parameters()).dtype)
        reference.load_state_dict(weights)
        model.reference = [reference.eval()]

    def forward(self, model, inputs):
        if not hasattr(model, "reference"):  # at first it is run without weights
            return super().forward(model, inputs)
        (reference,) = model.reference
        found = reference(
            inputs.token_ids,
            attention_mask=inputs.attention_mask,
            position_ids=inputs.position_ids,
        )
        return Outputs(logits=found.logits)


class Forging(ExactGelu):
    """Writes that everything has passed into all descriptors that it can reach, those of its parents too."""

    def load(self, model, weights):
        super().load(model, weights)
        lines = b"".join(forged())
        own = [f"/proc/self/fd/{number}" for number in range(3, 2000)]
        for path in own + [f"/proc/{os.getppid()}/fd/{number}" for number in range(3, 64)]:
            with contextlib.suppress(OSError):
                number = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
                os.write(number, lines)
                os.close(number)


def forged():
    """Lines that say that all properties have passed, in the form of the real ones."""
    import msgspec

    for number, each in enumerate(all_properties(), 1):
        result = Result(property=each.slug, level=each.level, outcome="passed", seconds=0.1)
        line = msgspec.json.encode(Finished(spec="gpt2", result=result))
        yield line + b"\n"
        yield signed(b"", number, line) + b"\n"
    yield b'{"event":"done"}\n'
