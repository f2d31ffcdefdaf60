"""A project folder of RELION's programs, with cryodc as a job in it that RELION starts, watches and reads.

Only the first file of a project comes from no program, since RELION's window writes it.
"""

import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
import torch

from cryodc.fourier import half_map_fsc
from cryodc.io import read_volume
from cryodc.simulation import SimulationConfig, choose_proteins, write_simulation

Relion = Callable[..., str]
CRYODC = f"{sys.executable} -m cryodc_cli.main relion-job"
FINISHED, FAILED, ABORTED = 2, 3, 4
"""rlnPipeLineProcessStatus, as RELION 3.1 writes it."""
PER_PROTEIN = 20


@pytest.fixture(scope="module")
def project(relion: Relion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with imported particles, whose images are named from its folder."""
    folder = tmp_path_factory.mktemp("project")
    config = SimulationConfig(n_per_map=PER_PROTEIN, snr=np.inf, box_size=24, spacing_angstrom=15.0)
    write_simulation(choose_proteins(["bilobe", "barrel"], []), config, folder / "sim", with_poses=True)
    text = (folder / "sim/particles.star").read_text()
    for images in ("subtomograms/", "weights/"):
        text = text.replace(images, f"sim/{images}")
    (folder / "particles.star").write_text(text)
    (folder / "small.yaml").write_text(
        "model: {width: 8, max_channels: 16}\noptimisation: {epochs: 1, batch_size: 8}\n"
    )
    (folder / "default_pipeline.star").write_text("data_pipeline_general\n\n_rlnPipeLineJobCounter 1\n\n")
    options = {
        "do_raw": "No",
        "do_other": "Yes",
        "fn_in_other": "particles.star",
        "node_type": "Particles STAR file (.star)",
    }
    add_and_run(relion, folder, "Import", options)
    assert status(folder, "Import/job001/") == FINISHED
    return folder


def add(relion: Relion, folder: Path, kind: str, options: dict[str, object]) -> str:
    before = pipeline(folder)["pipeline_general"]["rlnPipeLineJobCounter"]
    given = ";".join(f"{name} == {value}" for name, value in options.items())
    relion("pipeliner", folder, addJob=kind, addJobOptions=given)
    return f"{kind}/job{before:03d}/"


def add_and_run(relion: Relion, folder: Path, kind: str, options: dict[str, object]) -> str:
    name = add(relion, folder, kind, options)
    relion("pipeliner", folder, RunJobs=name, sec_wait_after=0)
    return name


def external(particles: str, **parameters: object) -> dict[str, object]:
    """Options of an External job, as its window has fields for them."""
    options: dict[str, object] = {"fn_exe": CRYODC, "in_part": particles, "nr_threads": 1}
    for number, (label, value) in enumerate(parameters.items(), start=1):
        options |= {f"param{number}_label": label, f"param{number}_value": value}
    return options


def pipeline(folder: Path) -> dict:
    return starfile.read(folder / "default_pipeline.star", always_dict=True)


def status(folder: Path, name: str) -> int:
    processes = pipeline(folder)["pipeline_processes"]
    return int(processes.loc[processes.rlnPipeLineProcessName == name, "rlnPipeLineProcessStatus"].iloc[0])


@pytest.fixture(scope="module")
def job(relion: Relion, project: Path) -> Path:
    """The folder of a job that RELION ran to its end."""
    options = external("Import/job001/particles.star", config="small.yaml", k=2, classify="No", starts=1)
    name = add_and_run(relion, project, "External", options)
    assert status(project, name) == FINISHED, (project / name / "run.err").read_text()
    return project / name


def test_relion_takes_particles_and_maps_of_the_job_for_later_jobs(job: Path, project: Path) -> None:
    name = job.relative_to(project)
    nodes = pipeline(project)["pipeline_nodes"]
    types = dict(zip(nodes.rlnPipeLineNodeName, nodes.rlnPipeLineNodeType, strict=True))
    assert types[f"{name}/particles.star"] == 3
    assert types[f"{name}/run/averages/class001.mrc"] == 6
    assert types[f"{name}/run/averages/class001_half1.mrc"] == 10
    assert types[f"{name}/run/averages/class001_mask.mrc"] == 7
    edges = pipeline(project)["pipeline_output_edges"]
    assert sum(edges.rlnPipeLineEdgeProcess == f"{name}/") == 1 + 2 * 4


def test_relion_reads_every_particle_and_its_class(relion: Relion, job: Path, project: Path, tmp_path: Path) -> None:
    particles = job.relative_to(project) / "particles.star"
    relion("star_handler", project, i=particles, o=tmp_path / "read.star")
    read = starfile.read(tmp_path / "read.star")["particles"]
    given = starfile.read(project / "particles.star")["particles"]
    assert list(read.rlnImageName) == list(given.rlnImageName)
    assert set(read.rlnClassNumber) == {1, 2}
    assert (project / "External").is_dir()


def test_relion_reconstructs_a_class_of_the_job_in_the_folder_of_the_project(
    relion: Relion, job: Path, project: Path, tmp_path: Path
) -> None:
    particles = job.relative_to(project) / "particles.star"
    chosen = {"class": 1}
    relion("reconstruct", project, i=particles, o=tmp_path / "relion.mrc", _3d_rot=True, ctf=True, **chosen)
    with mrcfile.open(tmp_path / "relion.mrc") as file:
        theirs = file.data.astype(np.float32)
    ours = read_volume(job / "run/averages/class001.mrc").voxels
    mask = read_volume(job / "run/averages/class001_mask.mrc").voxels

    pair = torch.tensor(np.stack([np.asarray(ours), theirs]))
    curve = half_map_fsc(pair, torch.tensor(np.asarray(mask)), 0).masked
    assert min(curve[1:10]) > 0.99


def test_a_finished_job_run_again_by_relion_computes_nothing_anew(relion: Relion, job: Path, project: Path) -> None:
    written = {path: path.stat().st_mtime_ns for path in (job / "run").rglob("*") if path.is_file()}
    relion("pipeliner", project, RunJobs=f"{job.relative_to(project)}/", sec_wait_after=0)
    assert status(project, f"{job.relative_to(project)}/") == FINISHED
    assert (job / "run.out").read_text().count("was done before") == 4
    assert {path: path.stat().st_mtime_ns for path in (job / "run").rglob("*") if path.is_file()} == written


@pytest.mark.parametrize(
    ("particles", "parameters", "said"),
    [
        ("Import/job001/particles.star", {"tilt_rang": "-60 60"}, "--tilt_range"),
        ("Import/job001/particles.star", {"config": "small.yaml", "k": 500}, "500"),
    ],
)
def test_a_job_that_cannot_run_is_marked_as_failed_and_says_why(
    relion: Relion, project: Path, particles: str, parameters: dict[str, object], said: str
) -> None:
    name = add_and_run(relion, project, "External", external(particles, **parameters))
    assert status(project, name) == FAILED
    error = (project / name / "run.err").read_text()
    assert said in error
    assert "Traceback" not in error


def test_a_job_is_aborted_as_relion_asks_and_goes_on_when_run_again(relion: Relion, project: Path) -> None:
    options = external("Import/job001/particles.star", config="small.yaml", epochs=12, k=2, no_pack="Yes")
    name = add(relion, project, "External", options)
    command = ["relion_pipeliner", "--RunJobs", name, "--sec_wait_after", "0"]
    log = project / name / "run/log.csv"
    with subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        until = time.monotonic() + 240
        while not log.exists() and time.monotonic() < until:
            time.sleep(0.05)
        (project / name / "RELION_JOB_ABORT_NOW").touch()
        running.wait(timeout=240)
    assert status(project, name) == ABORTED
    n_epochs = len(log.read_text().splitlines()) - 1
    assert 1 <= n_epochs < 12
    error = (project / name / "run.err").read_text()
    assert f"To go on: cryodc {shlex.join(['relion-job', '--o', name])}" in error
    relion("pipeliner", project, RunJobs=name, sec_wait_after=0)
    assert status(project, name) == FINISHED
    assert len(log.read_text().splitlines()) == 1 + 12
