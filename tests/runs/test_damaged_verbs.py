"""Every verb that reads a run, and every file of the run that it opens, damaged: one error, or the verb's work."""

import os
import random
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryodc_cli.main import load_verb

from cryodc.errors import InputError
from cryodc.generate import GenerateRequest, generate_run
from cryodc.runs import RunFolder
from cryodc.states import find_states

_opened: list[str] | None = None


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _opened is not None and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        flags = arguments[2]
        if isinstance(flags, int) and not flags & (os.O_WRONLY | os.O_RDWR):
            _opened.append(os.fsdecode(arguments[0]))


sys.addaudithook(_hook)


@contextmanager
def reading() -> Iterator[list[str]]:
    """The paths of all files that are opened to be read."""
    global _opened
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


@pytest.fixture(scope="module")
def whole(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sim/ and run/, which has all that a run may have."""
    folder = tmp_path_factory.mktemp("verbs")
    for name in ("sim", "run"):
        shutil.copytree(small_run.parent / name, folder / name)
    run = RunFolder(folder / "run")
    config = run.config.read_text().replace(str(small_run.parent), str(folder))
    run.config.write_text(config)
    find_states(run, 1, 2, n_starts=1)
    generate_run(run, GenerateRequest(n_columns=2, n_steps=3, n_axes=1, n_particles=2, device="cpu"))
    return folder


def _commands(folder: Path) -> dict[str, list[object]]:
    run, out = folder / "run", folder / "out"
    few = ["--columns", 2, "--steps", 3, "--axes", 1, "--particles", 2]
    return {
        "report": [run],
        "status": [run],
        "states": [run, "--class", 1, "--states", 1],
        "generate": [run, *few, "--out", out, "--device", "cpu"],
        "encode": [folder / "sim/particles.star", "--run", run, "--out", out, "--device", "cpu"],
        "identify": [run, "--library", folder / "sim/maps", "--decoys", 5],
        "select": [run, "--keep", 1, "--out", folder / "kept.star"],
        "map-back": [run, "--size", 40, 40, 40, "--out", out],
        "export": [run, "--relion", "--warp", "--out", out],
    }


def _do(folder: Path, verb: str) -> BaseException | None:
    for made in ("out", "kept.star"):
        path = folder / made
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
    done = CliRunner().invoke(load_verb(verb), [str(value) for value in _commands(folder)[verb]])
    if isinstance(done.exception, SystemExit):
        assert done.exit_code in (0, 2), done.output
        return None
    return done.exception


def _flipped(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(max(1, len(content) // 400)):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "emptied": lambda content, rng: b"",
    "truncated": lambda content, rng: content[: rng.randrange(1, max(2, len(content)))],
    "head only": lambda content, rng: content[: min(len(content) // 2, 1024)],
    "flipped": _flipped,
    "of another type": lambda content, rng: rng.choice([b"\x93NUMPY" + rng.randbytes(300), b"[1]\n" * 9, b"data_\n"]),
    "noise": lambda content, rng: rng.randbytes(len(content) or 10),
    "twice": lambda content, rng: content + content,
}
# The suite damages a share of the files, each in one way; CRYODC_DAMAGES=all is every file in every way.
_ALL = os.environ.get("CRYODC_DAMAGES") == "all"
_FILES = 2
VERBS = [*_commands(Path())]


@pytest.mark.parametrize("verb", VERBS)
def test_a_damaged_file_is_one_error_of_a_verb_or_its_work(verb: str, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "there"
    shutil.copytree(whole, folder)
    config = folder / "run/config.yaml"
    config.write_text(config.read_text().replace(str(whole), str(folder)))
    kept = tmp_path / "kept"
    shutil.copytree(folder, kept)
    with reading() as opened:
        assert _do(folder, verb) is None
    inputs = sorted({Path(path).relative_to(folder) for path in opened if Path(path).is_relative_to(folder)})
    inputs = [path for path in inputs if (kept / path).is_file() and path.name != ".lock"]
    # One of each kind: files that differ in a number are read alike.
    kinds = list({re.sub(r"\d+", "#", str(path)): path for path in inputs}.values())
    assert len(kinds) >= 2
    faults, n_refused, n_done = [], 0, 0
    chooser = random.Random(verb)
    for path in kinds if _ALL else chooser.sample(kinds, min(_FILES, len(kinds))):
        rng = random.Random(f"{verb} {path}")
        for name in sorted(DAMAGES) if _ALL else [rng.choice(sorted(DAMAGES))]:
            n_done += 1
            shutil.rmtree(folder)
            shutil.copytree(kept, folder)
            (folder / path).write_bytes(DAMAGES[name]((kept / path).read_bytes(), rng))
            error = _do(folder, verb)
            n_refused += isinstance(error, InputError)
            if error is not None and not isinstance(error, InputError):
                faults.append(f"{path} {name}: {error!r}")
            elif isinstance(error, InputError) and error.file is None:
                faults.append(f"{path} {name}: names no file: {error}")
    sys.stdout.write(f"{verb}: {n_done} damages of {len(kinds)} files, {n_refused} refused\n")
    assert faults == []
