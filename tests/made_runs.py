"""Run folders of which a test makes only what it needs: clusters and averages that nothing was computed for; clamps."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cryodc.models import preset_config
from cryodc.particles import read_particles
from cryodc.runs import (
    AverageSummary,
    ClassSummary,
    Clusters,
    RunFolder,
    fingerprint_of_clusters,
    fingerprint_of_codes,
    save_config,
    write_clusters,
    write_summary,
)
from cryodc.simulation import SimulationConfig, phantom, write_simulation
from cryodc.training import TrainRequest, describe_run

CLAMP_BOX, CLAMP_SPACING = 24, 14.0


def make_config(run: RunFolder, image_folders: Sequence[str | Path] = ()) -> None:
    """config.yaml, of a run that no one trained."""
    particles = {"n_particles": 2, "box_size": 16, "spacing_angstrom": 10.0, "fingerprint": "as the test says"}
    settings = preset_config("default", 16).model_dump(mode="json")
    read = {"tilt_range": [-60.0, 60.0], "tilt_ranges": None, "tilt_axis": "y", "invert": False}
    told = {"command": "cryodc train", "preset": "default", "seed": 0, "dataset": particles, "input": read}
    save_config(run, {**told, **settings, "image_folders": [str(folder) for folder in image_folders]})


def make_clusters(
    run: RunFolder, names: Sequence[str], labels: Sequence[int], confidence: Sequence[float] | None = None
) -> None:
    """clusters/summary.json, of the codes that the run has."""
    sure = np.ones(len(names)) if confidence is None else np.array(confidence)
    clusters = Clusters(tuple(names), np.array(labels, dtype=np.int64), sure, 1.0, (), "as the test says")
    made_of = fingerprint_of_codes(run) if run.codes.exists() else "no codes"
    write_clusters(run.clusters, clusters, made_of, requested="auto", seed=0)


def make_averages(run: RunFolder, resolutions: Mapping[int, float | None]) -> None:
    """averages/summary.json, of the clusters that the run has: each class's resolution; aligned where there is one."""
    classes = [
        ClassSummary(
            class_number=number,
            n_particles=1,
            fraction=1 / len(resolutions),
            fraction_interval=(0.0, 1.0),
            resolution_angstrom=resolution,
            b_factor=None,
            fourier_measured=1.0,
            fourier_efficiency=1.0,
            fourier_evenness=1.0,
            aligned=resolution is not None,
            score=1.0,
            note="as the test says",
            verdict="no-common-structure" if resolution is None else "protein",
            reason="as the test says",
            shape={},
            brightness=0.0,
            roundness=None,
        )
        for number, resolution in resolutions.items()
    ]
    summary = AverageSummary(
        made_of=fingerprint_of_clusters(run), poses="aligned", half_sets="none", seed=0, classes=classes
    )
    write_summary(run.averages, summary)


def make_clamps(folder: Path, labels: Sequence[int]) -> RunFolder:
    """A run of clamps that open and close, one a label, in their true poses; clustered so, and not averaged."""
    config = SimulationConfig(n_per_map=len(labels), snr=0.5, box_size=CLAMP_BOX, spacing_angstrom=CLAMP_SPACING)
    write_simulation({"clamp": phantom("clamp")}, config, folder / "sim", with_poses=True)
    star, run = folder / "sim/particles.star", RunFolder(folder / "run")
    run.path.mkdir()
    table = read_particles(star)
    request = TrainRequest(star=star, out=run.path, tilt_range=(-60.0, 60.0))
    save_config(run, describe_run(request, table, preset_config("default", CLAMP_BOX)))
    run.particles.write_bytes(star.read_bytes())
    make_clusters(run, table.names, labels)
    return run
