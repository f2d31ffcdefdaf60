"""``cryodc identify``: the right name, the right hand, the right place; and none where nothing known is there."""

import csv
import json
from pathlib import Path

import gemmi
import numpy as np
import pytest
import starfile
import torch
from click.testing import CliRunner
from cryodc_cli.look.identify import identify as identify_command

from cryodc.errors import InputError
from cryodc.fourier import apply_weight, wedge_from_tilt_range
from cryodc.geometry import random_rotations
from cryodc.identify import class_map, identify_run, make_decoys, match, rank, read_library
from cryodc.io import read_volume, write_volume
from cryodc.runs import RunFolder
from cryodc.simulation import phantom
from cryodc.volumes import Volume
from tests.made_runs import make_averages, make_clusters

BOX, SPACING = 24, 15.0
LIBRARY = ("bilobe", "barrel", "wheel", "tripod")
SHOWN_CLASS, ABSENT = "tripod", "clamp"


def posed(name: str, seed: int, spacing: float = SPACING) -> torch.Tensor:
    """A phantom turned and shifted at random."""
    generator = torch.Generator().manual_seed(seed)
    rotation, origin = random_rotations(1, generator), 15 * torch.randn(1, 3, generator=generator)
    return phantom(name).render(rotation, origin, torch.full((1,), 0.5), BOX, spacing)[0]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms as maps of another spacing, brightness and place, and one molecule."""
    folder = tmp_path_factory.mktemp("library")
    for scale, name in enumerate(LIBRARY, start=1):
        voxels = phantom(name).mean_map(36, 10.0)
        write_volume(folder / f"{name}.mrc", Volume((10.0**scale * torch.roll(voxels, 2, 1)).numpy(), 10.0))
    structure = gemmi.Structure()
    model, chain = gemmi.Model("1"), gemmi.Chain("A")
    for number in range(60):
        residue, atom = gemmi.Residue(), gemmi.Atom()
        residue.name, residue.seqid = "ALA", gemmi.SeqId(str(number + 1))
        atom.name, atom.element, atom.pos = "CA", gemmi.Element("C"), gemmi.Position(2.0 * number, 10, 5 * (number % 9))
        residue.add_atom(atom)
        chain.add_residue(residue)
    model.add_chain(chain)
    structure.add_model(model)
    (folder / "chain.pdb").write_text(structure.make_pdb_string())
    return folder


def shown_as(voxels: torch.Tensor, coverage: torch.Tensor | None = None):
    """A class that agrees with the truth in shells up to 8."""
    fsc = np.where(np.arange(BOX // 2 + 1) <= 8, 0.9, 0.0)
    everything = torch.ones((BOX,) * 3)
    return class_map(voxels, everything, everything if coverage is None else coverage, fsc, SPACING, BOX)


def test_a_class_is_named_whatever_its_pose_and_scale_and_lies_where_the_structure_is_put(library: Path) -> None:
    shown = shown_as(3e-3 * posed(SHOWN_CLASS, 1))
    known = read_library(library, BOX, SPACING)
    assert [each.name for each in known.known] == sorted([*LIBRARY, "chain"])
    matches = {each.name: match(shown, each.specimen) for each in known.known}
    verdict = rank(matches, [match(shown, decoy.specimen) for decoy in make_decoys(known.known, 8, 0)])
    assert verdict.name == SHOWN_CLASS
    best = matches[SHOWN_CLASS].registered.flatten()
    assert float(torch.corrcoef(torch.stack([best, shown.average.flatten()]))[0, 1]) > 0.95


def test_the_hand_is_that_of_the_class(library: Path) -> None:
    structure = next(each for each in read_library(library, BOX, SPACING).known if each.name == SHOWN_CLASS).specimen
    voxels = posed(SHOWN_CLASS, 2)
    as_it_is = match(shown_as(voxels), structure)
    turned_over = match(shown_as(torch.roll(voxels.flip(2), 1, 2)), structure)
    assert (as_it_is.hand, turned_over.hand) == ("as deposited", "mirrored")
    assert turned_over.agreement == pytest.approx(as_it_is.agreement, abs=0.02)
    assert min(as_it_is.hand_margin, turned_over.hand_margin) > 0.02


def test_what_a_class_did_not_measure_is_not_missed(library: Path) -> None:
    structure = next(each for each in read_library(library, BOX, SPACING).known if each.name == SHOWN_CLASS).specimen
    wedge = wedge_from_tilt_range(BOX, -40, 40)
    # The coverage of particles that all lie alike; DC at N // 2, on the full grid.
    full = torch.fft.fftshift(torch.fft.fftn(torch.fft.irfftn(wedge + 0j, s=(BOX,) * 3)).real)
    seen = apply_weight(posed(SHOWN_CLASS, 3), wedge)
    knowing, unknowing = (match(shown_as(seen, each), structure) for each in (full, None))
    assert knowing.agreement > unknowing.agreement + 0.05
    assert knowing.agreement > 0.9


@pytest.fixture
def run(tmp_path: Path, library: Path) -> RunFolder:
    """Three averaged classes: one that is known, one that is not, one that could not be aligned."""
    folder = RunFolder(tmp_path / "run")
    folder.averages.mkdir(parents=True)
    folder.config.write_text("{}")
    make_clusters(folder, ["p0", "p1", "p2", "p3"], [0, 0, 1, 2])
    make_averages(folder, {1: 45.0, 2: 45.0, 3: None})
    lines = ["class,shell,frequency_inverse_angstrom,fsc"]
    for number, name in ((1, SHOWN_CLASS), (2, ABSENT), (3, "wheel")):
        stem = folder.averages / f"class{number:03d}"
        write_volume(stem.with_suffix(".mrc"), Volume(posed(name, number).numpy(), SPACING))
        for what in ("mask", "coverage"):
            ones = np.ones((BOX,) * 3, np.float32)
            write_volume(stem.with_name(f"{stem.name}_{what}.mrc"), Volume(ones, SPACING))
        lines += [f"{number},{s},{s / (BOX * SPACING):.6f},{0.9 if s <= 8 else 0.0}" for s in range(BOX // 2 + 1)]
    (folder.averages / "fsc.csv").write_text("\n".join(lines) + "\n")
    rows = "".join(f"p{i}.mrc {number}\n" for i, number in enumerate((1, 1, 2, 3)))
    text = f"\ndata_particles\n\nloop_\n_rlnImageName #1\n_rlnClassNumber #2\n{rows}\n"
    (folder.averages / "particles.star").write_text(text)
    return folder


def test_the_command_names_classes_in_a_table_and_in_the_star(run: RunFolder, library: Path) -> None:
    before = (run.averages / "particles.star").read_bytes()
    result = CliRunner().invoke(identify_command, [str(run.path), "--library", str(library), "--decoys", "8"])
    assert result.exit_code == 0, result.output
    assert (run.averages / "particles.star").read_bytes() == before
    names = starfile.read(run.identified / "particles.star")["cdcName"].tolist()
    assert names == [SHOWN_CLASS, SHOWN_CLASS, "none", "none"]
    said = json.loads((run.identified / "summary.json").read_text())["classes"]
    assert [entry["name"] for entry in said] == [SHOWN_CLASS, "none", "none"]
    assert "none of these" in said[1]["why"]
    assert "cannot be compared" in said[2]["why"]
    with (run.identified / "candidates.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["class"], row["rank"]) for row in rows] == [(str(c), str(r)) for c in (1, 2) for r in range(1, 6)]
    assert float(rows[0]["z"]) > 3 > float(rows[1]["z"])
    assert float(rows[0]["resolution_fsc_0.5_angstrom"]) <= 46
    assert read_volume(run.identified / f"class001_{SHOWN_CLASS}.mrc").box_size == BOX


def test_what_does_not_fit_the_box_is_left_out_and_a_library_of_nothing_is_refused(
    run: RunFolder, tmp_path: Path
) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    with pytest.raises(InputError, match="nothing to compare with"):
        identify_run(run, folder)
    with pytest.raises(InputError, match="no such library"):
        identify_run(run, tmp_path / "nowhere")
    write_volume(folder / "huge.mrc", Volume(phantom("wheel").mean_map(24, 15.0).numpy(), 60.0))
    with pytest.raises(InputError, match="nothing in this library"):
        identify_run(run, folder)
    assert not run.identified.exists()
    write_volume(folder / f"{SHOWN_CLASS}.mrc", Volume(phantom(SHOWN_CLASS).mean_map(36, 10.0).numpy(), 10.0))
    found, left_out = identify_run(run, folder, n_decoys=5)
    assert found[0].name == SHOWN_CLASS
    assert list(left_out) == ["huge"]


def test_two_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for kind in ("a", "b"):
        (tmp_path / kind).mkdir()
        write_volume(tmp_path / kind / "x.mrc", Volume(phantom("wheel").mean_map(36, 10.0).numpy(), 10.0))
    assert [each.name for each in read_library(tmp_path, BOX, SPACING).known] == ["a/x.mrc", "b/x.mrc"]
