"""Every file that a user names is read within bounds: what has no end, or blocks, is refused with exit code 2."""

import os
import struct
import time
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from holotype_conformance.cli import main
from holotype_spec import files
from holotype_spec.gguf_header import GGUFError, read_header
from holotype_spec.reading import (
    ENTRIES,
    LONGEST,
    Unreadable,
    parse_json,
    parse_toml,
    read_bytes,
    read_text,
    within_bounds,
)

SPEC = "[family]\nname = 'x'\n"
# Each command that reads a file, with {} in its place.
COMMANDS = {
    "spec": "check reference --spec {}",
    "show": "show {}",
    "diff": "diff {} gpt2",
    "masks": "masks {}",
    "expected": "check reference --spec gpt2 --expected-failures {}",
    "kernel": "check-attention sdpa --expected-failures {}",
    "claims": "audit --document {}",
    "identify": "identify {}",
    "report": "report {}",
}


def suffixed(command):
    return "x.toml" if command in ("spec", "show", "diff", "masks", "claims") else "x"


def refused(command, path):
    """What a command says of a file that it cannot use."""
    began = time.process_time()
    run = CliRunner().invoke(main, COMMANDS[command].format(path).split())
    assert run.exit_code == 2, run.output
    assert "Traceback" not in run.output
    assert len(run.output) < 20_000
    assert time.process_time() - began < 60  # seconds of work, on however slow a machine
    return run.stderr


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no such device")
def test_a_device_without_end_is_refused(command, tmp_path):
    path = tmp_path / suffixed(command)
    path.symlink_to("/dev/zero")
    assert "is a device: expected a regular file" in refused(command, path)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_without_a_writer_is_refused(command, tmp_path):
    path = tmp_path / suffixed(command)
    os.mkfifo(path)
    assert "is a pipe: expected a regular file" in refused(command, path)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_larger_than_any_real_one_is_refused(command, tmp_path):
    path = tmp_path / suffixed(command)
    with path.open("wb") as file:
        file.truncate(600_000_000)  # of holes
    assert "is larger than" in refused(command, path)


@pytest.mark.parametrize("command", ["spec", "expected", "claims"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = " + "[" * 100_000, "nested too deeply"),
        ("x = " + "{a=" * 50_000, "nested too deeply"),
        (".".join("a" * 100_000) + " = 1", "has a key of more than 100 parts"),
        ("\n".join(f"k{number} = 1" for number in range(30_000)), "has more than 20,000 entries"),
        (f"x = '{'v' * (LONGEST + 1)}'", "has a text of 100,001 characters"),
    ],
    ids=["lists", "tables", "key", "keys", "value"],
)
@pytest.mark.slow
def test_toml_without_measure_is_refused(command, text, said, tmp_path):
    path = tmp_path / suffixed(command)
    path.write_text(text)
    assert said in refused(command, path)


@pytest.mark.parametrize("command", ["identify", "report"])
@pytest.mark.parametrize(
    "text",
    [
        '{"model_type": ' + "[" * 100_000,
        '{"model_type": "llama", ' + ", ".join(f'"k{n}": 1' for n in range(400_000)) + "}",
        '{"model_type": "' + "l" * 10_000_000 + '"}',
    ],
    ids=["deep", "keys", "value"],
)
def test_json_without_measure_is_refused(command, text, tmp_path):
    path = tmp_path / suffixed(command)
    path.write_text(text)
    refused(command, path)


def test_a_case_without_measure_is_refused():
    command = ["check", "reference", "--spec", "gpt2", "--property", "agreement.logits", "--case"]
    run = CliRunner().invoke(main, [*command, '{"size": ' + "[" * 50_000])
    assert run.exit_code == 2
    assert "nested too deeply" in run.stderr
    assert len(run.stderr) < 1000


@pytest.mark.parametrize("pairs", [2**62, 20_000])
def test_a_gguf_that_promises_without_measure_is_refused(pairs, tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, pairs) + bytes(400_000))
    with pytest.raises(GGUFError, match="expected a few hundred at most"):
        read_header(path)


def test_a_gguf_with_a_text_of_megabytes_or_lists_without_end_is_refused(tmp_path):
    def header(kind, value):
        return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + kind + value

    path = tmp_path / "x.gguf"
    text = struct.pack("<Q", 10_000_000) + b"v" * 10_000_000
    path.write_bytes(header(struct.pack("<I", 8), text))
    with pytest.raises(GGUFError, match="a text of 10,000,000 bytes"):
        read_header(path)
    path.write_bytes(header(struct.pack("<I", 9), struct.pack("<IQ", 8, 6_000_000)))
    with path.open("r+b") as file:
        file.truncate(60_000_000)
    with pytest.raises(GGUFError, match="more than 5,000,000 texts"):
        read_header(path)


def test_what_is_read_is_what_is_there(tmp_path):
    path = tmp_path / "x"
    path.write_bytes("ä".encode())
    assert read_text(path) == "ä"
    assert read_bytes(path, most=2) == "ä".encode()
    with pytest.raises(Unreadable, match="is larger than 1e-06 MB"):
        read_bytes(path, most=1)
    path.write_bytes(b"\xff")
    with pytest.raises(Unreadable, match="is no text in UTF-8"):
        read_text(path)
    with pytest.raises(Unreadable, match="No such file"):
        read_text(tmp_path / "none")
    with pytest.raises(Unreadable, match="is a folder"):
        read_text(tmp_path)
    with pytest.raises(Unreadable, match="null"):
        read_text("a\0b")


def test_what_is_parsed_is_what_is_said():
    assert parse_json('{"a": [1, {"b": "c"}]}', "x") == {"a": [1, {"b": "c"}]}
    assert parse_toml("a.b = 1.5", "x") == {"a": {"b": 1.5}}
    with pytest.raises(Unreadable, match="x is not JSON"):
        parse_json("{", "x")
    with pytest.raises(Unreadable, match="x is not TOML"):
        parse_toml("=", "x")


def test_bounds_are_far_from_what_is_real():
    ours = sorted(
        Path(files.__file__).parent.glob("*/*.toml"), key=lambda path: path.stat().st_size
    )
    assert 5 * ours[-1].stat().st_size < files.LARGEST
    for path in ours:
        within_bounds(tomllib.loads(path.read_text()), str(path), entries=ENTRIES // 3)


def test_of_many_mistakes_the_first_are_told(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(SPEC + "\n".join(f"k{number} = 1" for number in range(5_000)))
    said = refused("spec", path)
    assert said.count("expected") < 60
    assert " more" in said
