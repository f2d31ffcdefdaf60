"""Files of 2D stacks: what is kept, what is found, what is refused before anything is written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from click.testing import CliRunner
from cryodc_cli.prepare.import_ import import_

from cryodc.check import check_particles
from cryodc.errors import InputError
from cryodc.particles import read_particles
from cryodc.star import read_star
from cryodc.tilts import import_tilt_stacks
from cryodc.tilts.optimisation_set import find_tomograms
from tests.tilts.stacks import PIXEL, TILT_PIXEL, TILTS, N, Stacks, _imported, _loop


def test_rows_and_poses_of_the_input_stay_as_they_were_written(tmp_path: Path) -> None:
    star = Stacks(tmp_path / "in").write()
    summary = import_tilt_stacks(star, tmp_path / "out", binning=2)
    before, after = read_star(star), read_star(summary.star)
    old, new = before.block("particles"), after.block("particles")
    assert new.labels == (*old.labels, "rlnCtfImage")
    for label in old.labels:
        if label != "rlnImageName":
            assert new.column(label) == old.column(label)
    optics = after.block("optics")
    assert optics.column("rlnImageDimensionality") == ["3"]
    assert optics.column("rlnImageSize") == [str(N // 2)]
    assert float(optics.column("rlnImagePixelSize")[0]) == 2 * PIXEL
    assert float(optics.column("rlnTomoSubtomogramBinning")[0]) == 8
    assert after.block("general").column("rlnTomoSubTomosAre2DStacks") == ["0"]
    report = check_particles(summary.star)
    assert report.problems == ()
    assert report.weight_layout is not None
    assert "RELION 4 and 5" in report.weight_layout
    assert mrcfile.read(tmp_path / "out" / new.column("rlnImageName")[0]).dtype == np.float32


@pytest.mark.parametrize("given", ["optimisation_set.star", "particles.star"])
def test_the_tomograms_are_found_from_either_star(tmp_path: Path, given: str) -> None:
    Stacks(tmp_path / "in", layout="relion").write()
    summary = import_tilt_stacks(tmp_path / "in" / given, tmp_path / "out")
    assert summary.tomograms == tmp_path / "in" / "tomograms.star"
    assert json.loads((tmp_path / "out" / "import.json").read_text())["n_particles"] == 2


@pytest.mark.parametrize("written", ["TS_1.tomostar", "frames/TS_1.mrc", "rec_TS_1"])
def test_a_tomogram_of_another_ending_is_the_same_tomogram(tmp_path: Path, written: str) -> None:
    star = Stacks(tmp_path / "in").write()
    _replace(star, "TS_1  TS_1/", f"{written}  TS_1/")
    assert list(import_tilt_stacks(star, tmp_path / "out").hands) == [written]


def test_a_tomogram_whose_name_begins_alike_is_another(tmp_path: Path) -> None:
    star = Stacks(tmp_path / "in").write()
    _replace(star, "TS_1  TS_1/", "TS_1_2  TS_1/")
    with pytest.raises(InputError, match="TS_1_2 of the particles is not in"):
        import_tilt_stacks(star, tmp_path / "out")


def test_the_optimisation_set_of_a_refinement_names_the_tomograms(tmp_path: Path) -> None:
    star = Stacks(tmp_path, layout="relion").write().rename(tmp_path / "run_it025_data.star")
    (tmp_path / "tomograms.star").rename(tmp_path / "elsewhere.star")
    (tmp_path / "optimisation_set.star").unlink()
    (tmp_path / "run_it025_optimisation_set.star").write_text("data_\n\n_rlnTomoTomogramsFile elsewhere.star\n")
    assert find_tomograms(star, star, None) == tmp_path / "elsewhere.star"


def _without(path: Path, label: str) -> None:
    """Leave one column of a STAR out."""
    document = read_star(path)
    text = ""
    for block in document.blocks:
        labels = [name for name in block.labels if name != label]
        cells = block.columns(labels)
        if block.is_loop:
            rows = [" ".join(row) for row in zip(*cells.values(), strict=True)]
            text += _loop(block.name, [name.removeprefix("rln") for name in labels], rows)
        else:
            text += f"data_{block.name}\n\n" + "".join(f"_{name} {cells[name][0]}\n" for name in labels)
    path.write_text(text)


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def _other_stack(folder: Path, n_images: int, size: int) -> None:
    path = folder / "stacks" / "1_stack2d.mrcs"
    with mrcfile.new(path, np.zeros((n_images, size, size), np.float32), overwrite=True) as mrc:
        mrc.voxel_size = PIXEL


FAULTS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "no tomograms.star": (lambda f: (f / "tomograms.star").unlink(), "tomograms.star", "--tomograms"),
    "no such tomogram": (lambda f: _replace(f / "particles.star", "TS_1  TS_1/0", "TS_9  TS_1/0"), "TS_9", "TS_1"),
    "no table of tilts": (lambda f: _replace(f / "tomograms.star", "data_TS_1", "data_TS_2"), "TS_1", "data_TS_2"),
    "no defocus": (lambda f: _without(f / "tomograms.star", "rlnDefocusV"), "rlnDefocusV", "CTF"),
    "no dose": (lambda f: _without(f / "tomograms.star", "rlnMicrographPreExposure"), "PreExposure", "CTF"),
    "no geometry": (lambda f: _without(f / "tomograms.star", "rlnTomoProjY"), "rlnTomoYTilt", "align"),
    "no voltage": (lambda f: _without(f / "tomograms.star", "rlnVoltage"), "rlnVoltage", "RELION"),
    "no tomogram size": (lambda f: _without(f / "tomograms.star", "rlnTomoSizeX"), "size of tomogram", "rlnTomoSize"),
    "no position": (lambda f: _without(f / "particles.star", "rlnCoordinateZ"), "rlnCoordinateZ", "positions"),
    "no premultiplied": (
        lambda f: _without(f / "particles.star", "rlnCtfDataAreCtfPremultiplied"),
        "rlnCtfDataAreCtfPremultiplied",
        "1 if images were multiplied",
    ),
    "a stack of another size": (lambda f: _other_stack(f, len(TILTS), 20), "another size", "1_stack2d.mrcs"),
    "a stack of another length": (lambda f: _other_stack(f, 7, N), "number of images", "7 images"),
    "a stack that is not there": (lambda f: (f / "stacks" / "1_stack2d.mrcs").unlink(), "does not exist", "1_stack2d"),
    "visible frames of another series": (lambda f: _replace(f / "particles.star", "[1,1", "[1"), "VisibleFrames", "20"),
    "no rotation": (lambda f: _replace(f / "tomograms.star", "[0.0", "[9.0"), "rotation", "length 1"),
    "3D already": (
        lambda f: _replace(f / "particles.star", "2DStacks   1", "2DStacks   0"),
        "nothing to import",
        "train",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_missing_is_one_message_before_anything_is_written(tmp_path: Path, fault: str) -> None:
    spoil, problem, said = FAULTS[fault]
    star = Stacks(tmp_path / "in").write()
    spoil(tmp_path / "in")
    with pytest.raises(InputError) as caught:
        import_tilt_stacks(star, tmp_path / "out")
    assert problem in caught.value.problem
    assert said in str(caught.value)
    assert caught.value.file is not None
    assert not (tmp_path / "out").exists()


def test_positions_in_another_pixel_are_an_error_until_it_is_stated(tmp_path: Path) -> None:
    """Pixels of the tilt series, four of which are one of the images: outside if read as WarpTools writes them."""
    right = import_tilt_stacks(Stacks(tmp_path / "right").write(), tmp_path / "right out", hand="-1")
    star = Stacks(tmp_path / "in").write()
    document = read_star(star)
    labels = [f"rlnCoordinate{axis}" for axis in "XYZ"]
    cells = document.block("particles").columns(labels)
    finer = {label: [f"{float(text) * PIXEL / TILT_PIXEL:.4f}" for text in cells[label]] for label in labels}
    star.write_text("".join(document.with_columns("particles", finer).lines))
    with pytest.raises(InputError, match="outside its tomogram") as caught:
        import_tilt_stacks(star, tmp_path / "out", hand="-1")
    assert f"pixels of {PIXEL:g} Å (rlnImagePixelSize)" in str(caught.value.found)
    assert "rlnMicrographPixelSize" in str(caught.value.remedy)
    assert not (tmp_path / "out").exists()
    stated = read_star(star).with_column("optics", "rlnMicrographPixelSize", [f"{TILT_PIXEL}"])
    star.write_text("".join(stated.lines))
    summary = import_tilt_stacks(star, tmp_path / "out", hand="-1")
    for ours, theirs in zip(_imported(summary), _imported(right), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * float(np.abs(theirs).max()))


@pytest.mark.parametrize("choice", [{"box_size": 26}, {"box_size": 9}, {"binning": 4}, {"binning": 0}])
def test_a_box_that_does_not_fit_is_refused(tmp_path: Path, choice: dict[str, int]) -> None:
    star = Stacks(tmp_path / "in").write()
    with pytest.raises(InputError, match="box does not fit"):
        import_tilt_stacks(star, tmp_path / "out", **choice)


def test_train_and_check_name_the_command(tmp_path: Path) -> None:
    star = Stacks(tmp_path / "my data").write()
    command = f"cryodc import '{star}' --out subtomos/"
    with pytest.raises(InputError) as caught:
        read_particles(star)
    assert command in str(caught.value.remedy)
    (problem,) = check_particles(star).problems
    assert command in str(problem.error.remedy)


def test_the_command_imports_and_never_writes_over(tmp_path: Path) -> None:
    star = Stacks(tmp_path / "in").write()
    arguments = [str(star), "--out", str(tmp_path / "subtomos"), "--bin", "2", "--hand", "-1", "--device", "cpu"]
    done = CliRunner().invoke(import_, arguments)
    assert done.exit_code == 0, done.output
    assert f"Wrote 2 subtomograms of box {N // 2} at {2 * PIXEL:g} Å" in done.output
    again = CliRunner().invoke(import_, arguments)
    assert isinstance(again.exception, InputError)
    assert "overwrite" in again.exception.problem
