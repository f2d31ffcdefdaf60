"""Damaged files are one error or read right; ``python -m benchmarks.files.mutations`` damages all 3,000."""

import contextlib
from pathlib import Path

import numpy as np
import pytest

from benchmarks.files import mutations
from benchmarks.files.mutation_readers import DifferenceError, check_mrc, check_particles
from benchmarks.files.mutations import KINDS, content_of, run
from cryodc.errors import InputError


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_damaged_file_is_one_error_or_read_as_others_read_it(kind: str) -> None:
    tally = run(50, kind)[kind]
    assert not tally.faults, "\n".join(tally.faults)
    # Neither is everything refused nor is nothing damaged.
    assert tally.counts["right"] >= 5
    assert tally.counts["refused"] >= 5


def test_the_same_files_are_damaged_in_the_same_way_each_time() -> None:
    assert [content_of("mrc", i) for i in range(9)] == [content_of("mrc", i) for i in range(9)]
    assert len({content_of("particles", i) for i in range(20)}) == 20


def _outcome(monkeypatch: pytest.MonkeyPatch, check: object) -> str:
    monkeypatch.setitem(mutations.KINDS, "csv", ("a.csv", check))
    return next(iter(run(1, "csv")["csv"].counts))


def test_each_way_to_be_wrong_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(path: Path) -> None:
        while True:
            with contextlib.suppress(Exception):
                sum(range(1000))

    def fails(path: Path) -> None:
        raise KeyError(path)

    def unnamed(path: Path) -> None:
        raise InputError("bad")

    def other(path: Path) -> None:
        raise DifferenceError("another answer")

    monkeypatch.setattr(mutations, "LIMIT_SECONDS", 0.2)
    found = [_outcome(monkeypatch, check) for check in (slow, fails, unnamed, other, lambda path: None)]
    assert found == ["hang", "traceback", "unnamed", "different", "right"]


def test_another_answer_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.files import mutation_readers

    path = tmp_path / "a.star"
    path.write_text("data_\n\nloop_\n_rlnImageName\n_rlnPixelSize\n_rlnRandomSubset\na.mrc 4.0 1.0\n")
    check_particles(path)
    monkeypatch.setattr(mutation_readers, "read_particles", lambda *_, **__: _without_halves(path))
    with pytest.raises(DifferenceError, match="half sets"):
        check_particles(path)
    mrc = tmp_path / "a.mrc"
    mrc.write_bytes(next(content for content in map(content_of, ["mrc"] * 50, range(50)) if len(content) == 1024 + 216))
    check_mrc(mrc)
    wrapped = mutation_readers.read_array(mrc).astype(np.int64) - 256
    monkeypatch.setattr(mutation_readers, "read_array", lambda path: wrapped)
    with pytest.raises(DifferenceError, match="voxels"):
        check_mrc(mrc)


def _without_halves(path: Path) -> object:
    from dataclasses import replace

    from cryodc.particles import read_particles

    return replace(read_particles(path, check_images=False), half_sets=None)
