"""Atomic models as specimens: whole assemblies, density as published maps have it, in the box or refused."""

import gzip
from pathlib import Path

import gemmi
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cryodc_cli.prepare.simulate import simulate

from cryodc.errors import InputError
from cryodc.fourier import fourier_shell_correlation
from cryodc.io import Atoms, read_structure
from cryodc.simulation import prepare_map, read_map, read_truth
from cryodc.simulation.specimens import density_of_points, prepare_structure

# A carbon and an iron, a copy turned by 180° about z and moved by 30 Å, and a water.
BIOMT = """REMARK 350 BIOMOLECULE: 1
REMARK 350 APPLY THE FOLLOWING TO CHAINS: A
REMARK 350   BIOMT1   1  1.000000  0.000000  0.000000        0.00000
REMARK 350   BIOMT2   1  0.000000  1.000000  0.000000        0.00000
REMARK 350   BIOMT3   1  0.000000  0.000000  1.000000        0.00000
REMARK 350   BIOMT1   2 -1.000000  0.000000  0.000000        0.00000
REMARK 350   BIOMT2   2  0.000000 -1.000000  0.000000        0.00000
REMARK 350   BIOMT3   2  0.000000  0.000000  1.000000       30.00000
"""
ATOMS = """ATOM      1  CA  ALA A   1      10.000  20.000   5.000  1.00 20.00           C
HETATM    2 FE   HEM A   2      40.000   0.000   0.000  0.50 20.00          FE
HETATM    3  O   HOH A   3      50.000   0.000   0.000  1.00 20.00           O
END
"""


def test_the_assembly_is_made_and_water_left_out(tmp_path: Path) -> None:
    (tmp_path / "small.pdb").write_text(BIOMT + ATOMS)
    atoms = read_structure(tmp_path / "small.pdb")
    assert atoms.assembly == "1"
    expected = [[0, 0, 40], [5, 20, 10], [30, 0, -40], [35, -20, -10]]
    assert sorted(atoms.positions_angstrom.round(3).tolist()) == expected
    # Iron at half occupancy; scattering factors of International Tables C, 4.3.2.2: carbon 2.51 Å, iron 7.17 Å.
    assert sorted(atoms.masses.round(1).tolist()) == [12.0, 12.0, 27.9, 27.9]
    assert np.sort(atoms.scattering) == pytest.approx([2.51, 2.51, 3.58, 3.58], abs=0.03)


def test_mmcif_and_gzip_say_the_same_as_pdb(tmp_path: Path) -> None:
    (tmp_path / "small.pdb").write_text(BIOMT + ATOMS)
    structure = gemmi.read_structure(str(tmp_path / "small.pdb"))
    structure.setup_entities()
    with gzip.open(tmp_path / "small.cif.gz", "wt") as file:
        file.write(structure.make_mmcif_document().as_string())
    one, other = read_structure(tmp_path / "small.pdb"), read_structure(tmp_path / "small.cif.gz")
    assert other.assembly == "1"
    assert np.allclose(np.sort(one.positions_angstrom, axis=0), np.sort(other.positions_angstrom, axis=0))


def test_density_is_a_sum_of_gaussians_with_the_weight_of_each_atom() -> None:
    generator = np.random.default_rng(0)
    points, weights = generator.uniform(-6, 6, (7, 3)), generator.uniform(1, 5, 7)
    axis = np.arange(24) - 12
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    for sigma in (0.9, 1.4):
        drawn = density_of_points(points, weights, sigma, 24).numpy()
        squares = ((grid[..., None, :] - points) ** 2).sum(axis=-1)
        expected = (weights * np.exp(-squares / (2 * sigma**2))).sum(axis=-1) / (2 * np.pi * sigma**2) ** 1.5
        assert np.abs(drawn - expected).max() < 1e-3 * expected.max()
        assert drawn.sum() == pytest.approx(weights.sum(), rel=1e-3)


def test_a_structure_is_centred_on_its_mass_and_falls_to_1_over_e_at_its_resolution() -> None:
    atom = Atoms(np.array([[500.0, -300.0, 77.0]]), np.array([12.0]), np.array([2.5]), None)
    spectra = [
        torch.fft.rfftn(prepare_structure("atom", atom, 32, 10.0, resolution).mean_map(32, 10.0)).abs()
        for resolution in (40.0, 80.0)
    ]
    for spectrum, shell in zip(spectra, (8, 4), strict=True):
        assert float(spectrum[0, 0, shell] / spectrum[0, 0, 0]) == pytest.approx(np.exp(-1), rel=0.01)
    centred = prepare_structure("atom", atom, 32, 10.0).mean_map(32, 10.0)
    assert np.unravel_index(int(centred.argmax()), (32, 32, 32)) == (16, 16, 16)


def test_a_structure_that_does_not_fit_or_is_too_sharp_is_refused() -> None:
    pair = Atoms(np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 400.0]]), np.ones(2), np.ones(2), None)
    with pytest.raises(InputError, match="does not fit the box") as error:
        prepare_structure("pair", pair, 32, 10.0)
    box = int(str(error.value.remedy).split("--box ")[1].split()[0])
    prepare_structure("pair", pair, box, 10.0)
    with pytest.raises(InputError, match="resolution") as error:
        prepare_structure("pair", pair, box, 10.0, 12.0)
    assert "at least 20" in str(error.value.expected)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.pdb", "REMARK nothing\nEND\n", "no atoms"),
        ("a.cif", "data_x\n_a.b c\n", "no atoms"),
        ("b.cif", "loop_ of nothing", "cannot read"),
        ("a.txt", ATOMS, "not the name of a structure"),
        ("a.pdb.gz", "not gzip", "cannot read|no atoms"),
    ],
)
def test_files_that_are_no_structures_are_refused_before_anything_is_written(
    tmp_path: Path, name: str, text: str, problem: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=problem):
        read_structure(tmp_path / name)
    result = CliRunner().invoke(simulate, ["--structure", str(tmp_path / name), "--out", str(tmp_path / "sim")])
    assert isinstance(result.exception, InputError)
    assert not (tmp_path / "sim").exists()


def test_density_of_rubisco_is_that_of_the_shared_map(shared_data: Path, tmp_path: Path) -> None:
    """The shared map was made of the asymmetric unit: half of the particle."""
    with gzip.open(shared_data / "structures/1bxn.pdb.gz", "rt") as file:
        lines = [line for line in file if not line.startswith("REMARK 350")]
    (tmp_path / "half.pdb").write_text("".join(lines))
    half = prepare_structure("half", read_structure(tmp_path / "half.pdb"), 32, 10.0).mean_map(32, 10.0)
    published = prepare_map("1bxn", read_map(shared_data / "maps/1bxn.mrc.gz"), 32, 10.0).mean_map(32, 10.0)
    assert float(torch.corrcoef(torch.stack([half.flatten(), published.flatten()]))[0, 1]) > 0.98
    assert (fourier_shell_correlation(half, published)[1:10] > 0.97).all()


def test_rubisco_is_whole_and_has_the_symmetry_its_operator_says(shared_data: Path) -> None:
    atoms = read_structure(shared_data / "structures/1bxn.pdb.gz")
    assert len(atoms) == 36288
    whole = prepare_structure("1bxn", atoms, 32, 10.0)
    # BIOMT 2 of the file, xyz: a half turn, which takes the octamer to itself.
    turn = np.array([[-0.798049, 0.535158, 0.276990], [0.535158, 0.418137, 0.734008], [0.276990, 0.734008, -0.620088]])
    poses = torch.stack([torch.eye(3), torch.from_numpy(turn[::-1, ::-1].copy()).float()])
    one, turned = whole.render(poses, torch.zeros(2, 3), torch.zeros(2), 32, 10.0)
    assert float(torch.corrcoef(torch.stack([one.flatten(), turned.flatten()]))[0, 1]) > 0.995


def test_the_command_takes_structures_beside_phantoms(shared_data: Path, tmp_path: Path) -> None:
    spike = shared_data / "structures/spike/6vxx.pdb.gz"
    arguments = ["--n", "1", "--structure", str(spike), "--phantoms", "bar", "--resolution", "25"]
    result = CliRunner().invoke(simulate, [*arguments, "--out", str(tmp_path / "sim")])
    assert result.exit_code == 0, result.output
    assert set(read_truth(tmp_path / "sim/truth.csv").proteins) == {"bar", "6vxx"}
    assert "resolution_angstrom: 25.0" in (tmp_path / "sim/simulation.yaml").read_text()


def test_options_of_what_is_not_simulated_are_refused(tmp_path: Path) -> None:
    for option in (["--resolution", "30"], ["--dose-per-tilt", "2"], ["--min-distance", "100"]):
        result = CliRunner().invoke(simulate, [*option, "--out", str(tmp_path / "sim")])
        assert result.exit_code == 2
        assert "is not given" in result.output
