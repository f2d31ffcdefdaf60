"""RELION's programs judge averages, half maps, FSC and poses of the STAR that goes with them.

Three of its habits are kept out of the way, each where it matters. ``relion_reconstruct`` has a spectrum on a
grid twice as fine, empty beyond Nyquist, and cuts the box out of the larger one which that means: that mixes the two
shells before Nyquist with nothing. Its gridding correction is approximate; ``--skip_gridding`` divides by the weights,
as we do. ``relion_postprocess`` counts Fourier voxels with x = 0 twice.
"""

from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from benchmarks.maps.relion_reconstruct import CHOICES, Beads, average, on_finer_grid, reconstruct, shell_fsc
from cryodc.averaging import average_run
from cryodc.export import export_run
from cryodc.fourier import half_map_fsc
from cryodc.models import preset_config
from cryodc.particles import read_particles
from cryodc.runs import RunFolder, save_config
from cryodc.simulation import SimulationConfig, choose_proteins, read_truth, write_simulation
from cryodc.training import TrainRequest, describe_run
from tests.made_runs import make_clusters

Relion = Callable[..., str]
BOX, SPACING, PER_CLASS = 32, 11.25, 150


def averaged_run(folder: Path, snr: float) -> RunFolder:
    """A run of two classes, the two proteins, averaged in the poses they were simulated in."""
    config = SimulationConfig(n_per_map=PER_CLASS, snr=snr, box_size=BOX, spacing_angstrom=SPACING)
    truth = write_simulation(choose_proteins(["bilobe", "barrel"], []), config, folder / "sim", with_poses=True)
    run = RunFolder(folder / "run")
    run.path.mkdir()
    star = folder / "sim/particles.star"
    table = read_particles(star)
    save_config(run, describe_run(TrainRequest(star=star, out=run.path), table, preset_config("default", BOX)))
    run.particles.write_bytes(star.read_bytes())
    make_clusters(run, table.names, truth.labels.tolist())
    average_run(run)
    return run


@pytest.fixture(scope="module")
def clean(relion: Relion, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return averaged_run(tmp_path_factory.mktemp("clean"), np.inf)


@pytest.fixture(scope="module")
def noisy(relion: Relion, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return averaged_run(tmp_path_factory.mktemp("noisy"), 0.1)


def read(path: Path) -> NDArray[np.float64]:
    with mrcfile.open(path) as file:
        return file.data.astype(float)


def fsc(first: NDArray[np.float64], second: NDArray[np.float64], as_relion: bool = True) -> NDArray[np.float64]:
    """Over the half of Fourier space that RELION keeps: voxels with x = 0 with their mates, others without."""
    k = np.fft.fftfreq(BOX, 1 / BOX)
    x = np.arange(BOX // 2 + 1)
    shell = np.floor(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + x**2) + 0.5).astype(int)
    count = np.where(np.isin(x, (0, BOX // 2)) | as_relion, 1.0, 2.0)
    a, b = np.fft.rfftn(first), np.fft.rfftn(second)
    sums = [
        np.bincount(shell.ravel(), (values * count).ravel())[: BOX // 2 + 1]
        for values in ((a * b.conj()).real, abs(a) ** 2, abs(b) ** 2)
    ]
    return sums[0] / np.sqrt(sums[1] * sums[2])


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(("suffix", "subset"), [("", -1), ("_half1", 1), ("_half2", 2)])
def test_averages_and_half_maps_are_those_of_relion_reconstruct(
    relion: Relion, clean: RunFolder, tmp_path: Path, number: int, suffix: str, subset: int
) -> None:
    star, images, stem = clean.averages / "particles.star", clean.path.parent / "sim", f"class{number:03d}"
    mask = read(clean.averages / f"{stem}_mask.mrc")
    chosen = {"class": number, "subset": subset}
    theirs = {}
    for name, flags in (("as it comes", {}), ("quotient", {"pad": 4, "skip_gridding": True})):
        relion("reconstruct", images, i=star, o=tmp_path / "map.mrc", _3d_rot=True, ctf=True, **chosen, **flags)
        theirs[name] = read(tmp_path / "map.mrc") * mask
    ours = read(clean.averages / f"{stem}{suffix}.mrc") * mask
    for each in theirs.values():
        assert shell_fsc(ours, each)[1 : BOX // 2 - 1].min() >= 0.999
    table = starfile.read(star)["particles"]
    rows = (table["rlnClassNumber"] == number) & ((table["rlnRandomSubset"] == subset) | (subset < 0))
    cropped = on_finer_grid(read_particles(star, images).select(np.flatnonzero(rows))) * mask
    agreement = shell_fsc(cropped, theirs["quotient"])
    assert len(agreement) == BOX // 2 + 1
    assert agreement[1:].min() >= 0.999, agreement.round(5)


def test_in_the_last_shells_our_average_is_nearer_to_the_truth_than_relions(relion: Relion, tmp_path: Path) -> None:
    truth = Beads(BOX).write(tmp_path, PER_CLASS)
    ours = shell_fsc(average(read_particles(tmp_path / "particles.star", tmp_path)).average.numpy(), truth)
    assert ours[5:].min() >= 0.998, ours.round(4)
    for number, flags in enumerate(CHOICES.values()):
        reconstruct(tmp_path, tmp_path / f"{number}.mrc", *flags)
        theirs = shell_fsc(read(tmp_path / f"{number}.mrc"), truth)
        assert (theirs[-2:] < ours[-2:]).all(), (flags, theirs[-2:], ours[-2:])


def test_curves_are_those_of_relion_postprocess(relion: Relion, noisy: RunFolder, tmp_path: Path) -> None:
    stem = noisy.averages / "class001"
    halves = [read(stem.with_name(f"class001_half{half}.mrc")) for half in (1, 2)]
    mask = read(stem.with_name("class001_mask.mrc"))
    files = {"i": f"{stem}_half1.mrc", "i2": f"{stem}_half2.mrc", "mask": f"{stem}_mask.mrc"}
    corrected = []
    # Phases are drawn anew for each seed; what is compared is their mean.
    for seed in range(1, 41):
        relion("postprocess", tmp_path, **files, o=tmp_path / "post", random_seed=seed)
        table = starfile.read(tmp_path / "post.star")["fsc"]
        corrected.append(table["rlnFourierShellCorrelationCorrected"].to_numpy())
    theirs = {
        "unmasked": table["rlnFourierShellCorrelationUnmaskedMaps"].to_numpy(),
        "masked": table["rlnFourierShellCorrelationMaskedMaps"].to_numpy(),
        "corrected": np.mean(corrected, axis=0),
    }
    assert theirs["unmasked"][1:] == pytest.approx(fsc(*halves)[1:], abs=1e-5)
    assert theirs["masked"][1:] == pytest.approx(fsc(halves[0] * mask, halves[1] * mask)[1:], abs=1e-5)
    ours = np.genfromtxt(noisy.averages / "fsc.csv", delimiter=",", names=True)[: BOX // 2 + 1]
    for name in ("unmasked", "masked"):
        every = fsc(*(half * (mask if name == "masked" else 1) for half in halves), as_relion=False)
        assert ours[f"fsc_{name}"][1:] == pytest.approx(every[1:], abs=1e-5)
    assert ours["fsc_masked"][1:] == pytest.approx(theirs["masked"][1:], abs=0.01)
    pair, soft = torch.tensor(np.stack(halves)), torch.tensor(mask)
    drawn = [half_map_fsc(pair, soft, seed).corrected for seed in range(10)]
    assert np.mean(drawn, axis=0)[1:] == pytest.approx(theirs["corrected"][1:], abs=0.01)


def test_relion_refine_finds_our_poses_in_what_was_exported(relion: Relion, noisy: RunFolder, tmp_path: Path) -> None:
    exported = tmp_path / "exported"
    export_run(noisy, exported, ["relion"], classes=[1])
    (tmp_path / "refined").mkdir()
    # A global search: RELION is told no pose, only our average; the grid's step is 15 degrees.
    search = {"healpix_order": 1, "oversampling": 1, "offset_range": 2, "offset_step": 1}
    options = {"iter": 1, "K": 1, "particle_diameter": 300, "ini_high": 40, "tau2_fudge": 4, "sym": "C1"}
    flags = dict.fromkeys(("ctf", "norm", "scale", "flatten_solvent", "zero_mask", "dont_check_norm"), True)
    files = {"i": exported / "particles.star", "ref": exported / "class001.mrc", "o": tmp_path / "refined/run"}
    relion("refine", noisy.path.parent / "sim", **files, **search, **options, **flags)
    found = starfile.read(tmp_path / "refined/run_it001_data.star")["particles"]
    truth = read_truth(noisy.path.parent / "sim/truth.csv")
    order = {name: row for row, name in enumerate(truth.names)}
    rows = [order[name] for name in found["rlnImageName"]]
    assert len(rows) == PER_CLASS
    theirs = Rotation.from_euler("ZYZ", found[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]], degrees=True).inv()
    simulated = Rotation.from_matrix(truth.poses.rotations[rows][:, ::-1, ::-1])
    angles = np.degrees((theirs * simulated.inv()).magnitude())
    assert np.median(angles) < 15
    shifts = found[["rlnOriginZAngst", "rlnOriginYAngst", "rlnOriginXAngst"]].to_numpy()
    assert np.median(abs(shifts - truth.poses.origins_angstrom[rows])) < SPACING
