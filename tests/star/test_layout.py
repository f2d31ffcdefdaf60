"""What a STAR is, and the remedy for one that cannot be used."""

from pathlib import Path

import pytest

from cryodc.check import check_particles
from cryodc.errors import InputError
from cryodc.star import find_particle_block, read_star
from cryodc.tilts import import_tilt_stacks
from cryodc.training import TrainRequest, prepare_run

_N_TILTS = 5
OPTICS = """data_optics

loop_
_rlnOpticsGroup #1
_rlnImagePixelSize #2
_rlnImageSize #3
_rlnImageDimensionality #4
1 12.0 32 2

"""


def series(folder: Path, *, optics: bool, places: bool, n_particles: int = 3) -> Path:
    """A row a tilt, as Warp and M write image series; with the optics block that RELION adds, or without."""
    labels = ["rlnImageName", "rlnMicrographName", "rlnGroupName", "rlnCtfBfactor", "rlnCtfScalefactor", "rlnDefocusU"]
    labels += ["rlnCoordinateX", "rlnCoordinateY"] if places else []
    labels += ["rlnOpticsGroup"] if optics else []
    lines = [OPTICS if optics else "", f"data_{'particles' if optics else ''}", "", "loop_"]
    lines += [f"_{label} #{i}" for i, label in enumerate(labels, 1)]
    for particle in range(n_particles):
        for tilt in range(_N_TILTS):
            cells = [f"{tilt + 1:06d}@series/TS_01_{particle:07d}.mrcs", "TS_01.tomostar", f"TS_01_{particle:07d}"]
            cells += [f"{-12.0 * tilt:.1f}", f"{1 - 0.1 * tilt:.2f}", f"{30000 + 10 * tilt}"]
            cells += [f"{100 + 7 * particle}", f"{200 + 3 * particle}"] if places else []
            lines.append("  ".join([*cells, *(["1"] if optics else [])]))
    star = folder / "TS_01_series.star"
    star.write_text("\n".join(lines) + "\n")
    return star


@pytest.mark.parametrize("optics", [False, True])
@pytest.mark.parametrize("places", [False, True])
def test_tilt_images_are_no_particles_for_any_verb(optics: bool, places: bool, tmp_path: Path) -> None:
    star = series(tmp_path, optics=optics, places=places)
    found = "15 tilt images of 3 particles"
    with pytest.raises(InputError) as trained:
        prepare_run(TrainRequest(star, tmp_path / "run"))
    errors = [trained.value, check_particles(star).problems[0].error]
    assert {error.found for error in errors} == {found}
    assert len({str(error) for error in errors}) == 1
    assert f"cryodc import {star}" in str(errors[0].remedy)
    assert not (tmp_path / "run").exists()
    # The verb that takes them says what this file lacks.
    with pytest.raises(InputError, match="has no rlnDefocusV, rlnDefocusAngle, rlnAngleRot"):
        import_tilt_stacks(star, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tilt_images_in_places_of_their_own_are_no_particles(tmp_path: Path) -> None:
    """A place in the image differs between tilts; that a micrograph has several groups tells them."""
    star = series(tmp_path, optics=False, places=True)
    lines = star.read_text().splitlines()
    rows = [i for i, line in enumerate(lines) if "@" in line]
    for shift, i in enumerate(rows):
        *kept, x, y = lines[i].split()
        lines[i] = "  ".join([*kept, f"{float(x) + shift}", y])
    star.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError) as raised:
        find_particle_block(read_star(star))
    assert raised.value.found == "15 tilt images of 3 particles"


def test_tilt_images_of_one_particle_are_one_particle(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        find_particle_block(read_star(series(tmp_path, optics=True, places=True, n_particles=1)))
    assert raised.value.found == "5 tilt images of 1 particles"


def test_single_particles_whose_ctf_was_refined_are_particles(tmp_path: Path) -> None:
    """A group is then a micrograph, and its particles lie in different places of it."""
    lines = [OPTICS, "data_particles", "", "loop_"]
    labels = ["rlnImageName", "rlnMicrographName", "rlnGroupName", "rlnCtfBfactor", "rlnCoordinateX", "rlnCoordinateY"]
    lines += [f"_{label} #{i}" for i, label in enumerate([*labels, "rlnOpticsGroup"], 1)]
    for i in range(6):
        lines.append(
            f"{i + 1:06d}@mic_{i // 3}.mrcs  mic_{i // 3}.mrc  group_{i // 3}  {-3.5 * i}  {10 * i}  {7 * i}  1"
        )
    star = tmp_path / "particles.star"
    star.write_text("\n".join(lines) + "\n")
    assert find_particle_block(read_star(star)).n_rows == 6


@pytest.mark.parametrize("optics", [False, True])
def test_tilts_of_another_group_name_in_subtomograms_are_left_alone(optics: bool, tmp_path: Path) -> None:
    """Subtomograms may share a group: each has its own weight volume."""
    lines = [OPTICS.replace("32 2", "32 3") if optics else "", "data_particles", "", "loop_"]
    labels = ["rlnImageName", "rlnCtfImage", "rlnMicrographName", "rlnGroupName", "rlnCtfBfactor"]
    labels += ["rlnOpticsGroup"] if optics else []
    lines += [f"_{label} #{i}" for i, label in enumerate(labels, 1)]
    lines += [f"{i}.mrc  {i}_ctf.mrc  TS_01  all  {-i}{'  1' if optics else ''}" for i in range(4)]
    star = tmp_path / "particles.star"
    star.write_text("\n".join(lines) + "\n")
    assert find_particle_block(read_star(star)).n_rows == 4


def test_picks_are_told_which_verb_takes_them(tmp_path: Path) -> None:
    star = tmp_path / "my picks.star"
    star.write_text(
        "data_\n\nloop_\n_rlnTomoName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n_rlnCoordinateZ #4\nT 1 2 3\n"
    )
    problem = check_particles(star).problems[0].error
    assert f"cryodc extract TOMOGRAM.mrc --picks '{star}'" in str(problem.remedy)
    assert "cryodc convert" in str(problem.remedy)
