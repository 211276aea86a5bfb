"""Adapters of `gpt2_with_bugs.py`: one with all three bugs, and one for each."""

from adapter import Adapter as SoundAdapter
from gpt2_with_bugs import plant


class Adapter(SoundAdapter):
    title = "a GPT-2 with three bugs"
    bugs: tuple[str, ...] = ()

    def build(self, spec, path="default"):
        return plant(super().build(spec, path), *self.bugs)


class SeesAhead(Adapter):
    title = "a GPT-2 that sees one token ahead"
    bugs = ("sees-ahead",)


class ExactGelu(Adapter):
    title = "a GPT-2 with the exact GELU"
    bugs = ("exact-gelu",)


class PositionsRestart(Adapter):
    title = "a GPT-2 that counts cached positions from 0"
    bugs = ("positions-restart",)
