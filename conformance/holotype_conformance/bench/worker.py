"""The process that runs the code under test: ``python -P -m holotype_conformance.bench.worker``.

It reads asks, a JSON line each, from standard input and answers each with one line on what was its standard output.
Whatever the code under test prints goes to standard error. When the parent is gone the process goes too.
"""

from __future__ import annotations

import os
import sys

import msgspec

from holotype_conformance.bench.protocol import AnyAsk

HIGH = 900


def main() -> None:
    """Answer until there is nothing more to answer."""
    asks, answers = _high(0), _high(1)
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    from holotype_conformance.bench.server import Server  # imports torch, which may print

    server = Server()
    decoder, encoder = msgspec.json.Decoder(AnyAsk), msgspec.json.Encoder()
    with os.fdopen(asks, "rb") as lines:
        for line in lines:
            answer = encoder.encode(server.answer(decoder.decode(line))) + b"\n"
            while answer:
                answer = answer[os.write(answers, answer) :]
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # what the code under test left running must not keep the process alive


def _high(descriptor: int) -> int:
    """The same under a number that is seldom met by code that closes or scribbles on all that it can think of."""
    try:
        import fcntl

        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, HIGH)
    except (ImportError, OSError):  # Windows, or fewer descriptors are allowed
        return os.dup(descriptor)


if __name__ == "__main__":
    main()
