"""RELION's own parser reads every STAR that any verb writes: all its particles, and every number of them.

A STOPGAP motivelist is a STAR file too, but none of RELION's.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from click.testing import CliRunner
from cryodc_cli.main import VERBS, load_verb

from cryodc.averaging import AverageRequest, average_run
from cryodc.runs import RunFolder
from cryodc.simulation import SimulatedTiltSeries, SimulationConfig, phantom, write_simulation

WITHOUT_STAR = {
    "check",
    "pack",
    "generate",
    "map-back",
    "report",
    "view",
    "evaluate",
    "status",
    "plan",
    "bench",
    "relion-job",
}
"""Verbs that write none, and one with a test of its own; ``demo`` calls the others."""


@dataclass
class Written:
    """The STAR files that each verb wrote."""

    stars: dict[str, list[Path]] = field(default_factory=dict)

    def add(self, verb: str, folder: Path) -> None:
        found = [folder] if folder.is_file() else sorted(folder.rglob("*.star"))
        assert found, f"{verb} wrote no STAR in {folder}"
        self.stars.setdefault(verb, []).extend(found)


def _call(verb: str, *arguments: object) -> None:
    result = CliRunner().invoke(load_verb(verb), [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def written(small_run: Path, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder, written = tmp_path_factory.mktemp("stars"), Written()
    written.add("simulate", small_run.parent / "sim")
    series = SimulationConfig(n_per_map=3, box_size=24, spacing_angstrom=15.0, tilt_series=SimulatedTiltSeries(20.0))
    write_simulation({"wheel": phantom("wheel")}, series, folder / "series", with_poses=True)
    written.add("simulate", folder / "series")
    written.add("train", small_run / "particles.star")
    written.add("cluster", small_run / "clusters")
    written.add("average", small_run / "averages")
    # What follows writes into the run.
    run = folder / "run"
    shutil.copytree(small_run, run)
    average_run(RunFolder(run), AverageRequest(ignore_poses=True, classify=True, n_starts=1, n_rounds=1))
    written.add("average", run / "averages")
    shutil.rmtree(run / "averages")
    shutil.copytree(small_run / "averages", run / "averages")
    _call("states", run, "--class", "1", "-n", "2", "--starts", "1")
    written.add("states", run / "states")
    _call("encode", small_run.parent / "sim/particles.star", "--run", small_run, "--out", folder / "encoded")
    written.add("encode", folder / "encoded")
    _call("identify", run, "--library", small_run.parent / "sim/maps", "--decoys", 5)
    written.add("identify", run / "identified")
    _call("select", small_run, "--keep", "1", "--out", folder / "kept.star")
    written.add("select", folder / "kept.star")
    _call("export", small_run, "--relion", "--warp", "--out", folder / "export")
    written.add("export", folder / "export")
    particles = folder / "export/particles.star"
    _call("convert", particles, folder / "picks.star", "--spacing", 15)
    written.add("convert", folder / "picks.star")
    with mrcfile.new(folder / "TS_07.mrc") as tomogram:
        tomogram.set_data(np.random.default_rng(0).standard_normal((40, 48, 56)).astype(np.float32))
        tomogram.voxel_size = 10.0
    (folder / "picks.csv").write_text("tomogram,x,y,z\nTS_07,20,20,20\nTS_07,30.5,25,18\n")
    picks = ("--picks", folder / "picks.csv", "--box", 16, "--tilt-range", -60, 60)
    _call("extract", folder / "TS_07.mrc", *picks, "--out", folder / "extracted")
    written.add("extract", folder / "extracted")
    posed = (small_run / "averages/particles.star", "--data-dir", small_run.parent / "sim")
    _call("recentre", *posed, "--on", "origins", "--out", folder / "centred")
    written.add("recentre", folder / "centred")
    stacks = shared_data / "real/ribosome70s/tilt_stacks"
    star = next(file for file in stacks.glob("*.star") if file.stem.endswith("angpix-12"))
    _call("import", star, "--data-dir", stacks, "--out", folder / "imported")
    written.add("import", folder / "imported")
    return written


def test_every_verb_that_writes_a_star_is_judged(written: Written) -> None:
    assert set(written.stars) | WITHOUT_STAR | {"demo"} == set(VERBS)


def test_relion_reads_every_row_and_number_that_was_written(
    relion: Callable[..., str], written: Written, tmp_path: Path
) -> None:
    for star in (path for paths in written.stars.values() for path in paths):
        blocks = starfile.read(star, always_dict=True)
        ours = next(blocks[name] for name in ("particles", "") if name in blocks)
        # Picks and Warp's table have no optics: the form of RELION 3.0, which RELION reads by converting it.
        program = "star_handler" if "optics" in blocks else "convert_star"
        relion(program, tmp_path, i=star, o=tmp_path / "read.star")
        read = starfile.read(tmp_path / "read.star", always_dict=True)
        assert set(read) - {"optics"}, star
        theirs = next(table for name, table in read.items() if name != "optics")
        assert len(theirs) == len(ours), star
        for label in ours.columns:
            if pd.api.types.is_numeric_dtype(ours[label]):
                assert theirs[label].to_numpy() == pytest.approx(ours[label].to_numpy(), rel=1e-5, abs=1e-5), star
