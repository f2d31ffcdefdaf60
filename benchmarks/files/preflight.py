"""Pre-flight: how often `cryodc check` names each of eleven faults, and whether it is silent where there is none.

python -m benchmarks.files.preflight --seeds 10 11 12 --out preflight/

Each seed simulates two phantoms with poses, spoils one copy of the set in each way, and checks it as a user would.
Sets without a fault are checked too, of other boxes, tilts, phantoms and numbers, and some with poses that mean
nothing. Prints JSON: how often each fault was named, what else was found beside it, and every false alarm.
"""

import argparse
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.command import positive, run
from cryodc.check import CheckReport, CheckSettings, check_particles
from cryodc.io import read_array, read_volume, write_array, write_volume
from cryodc.simulation import SimulationConfig, choose_proteins, write_simulation
from cryodc.star import particle_block, read_star, write_star
from cryodc.volumes import Volume

_ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst")


@dataclass(frozen=True)
class Fault:
    """How a set is spoiled, and the words `check` must say."""

    spoil: Callable[[Path], None]
    named: str
    detail: str = ""


def change_columns(folder: Path, labels: Sequence[str], change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change numeric columns of particles.star, given and returned as ``(n, labels)``."""
    star = folder / "particles.star"
    document = read_star(star)
    block = particle_block(document)
    cells = block.columns(list(labels))
    values = change(np.array([[float(text) for text in cells[label]] for label in labels]).T)
    columns = {label: [f"{value:.6f}" for value in column] for label, column in zip(labels, values.T, strict=True)}
    write_star(document.with_columns(block.name, columns), folder / "changed.star")
    (folder / "changed.star").replace(star)


def change_volumes(folder: Path, change: Callable[[np.ndarray], np.ndarray], spacing_factor: float = 1.0) -> None:
    """Change every subtomogram."""
    for path in sorted((folder / "subtomograms").iterdir()):
        volume = read_volume(path)
        voxels = np.ascontiguousarray(change(volume.voxels))
        write_volume(path, Volume(voxels, volume.spacing_angstrom * spacing_factor))


def one_volume(folder: Path) -> Path:
    """A subtomogram in the middle of the set."""
    paths = sorted((folder / "subtomograms").iterdir())
    return paths[len(paths) // 2]


def swap_weight_axes(folder: Path) -> None:
    """Store every weight with z and x exchanged."""
    for path in (folder / "weights").iterdir():
        half = read_array(path)
        box = len(half)
        # The other half of the cube is the mirror image of this one: W(−k) = W(k).
        mirrored = np.roll(half[::-1, ::-1], 1, axis=(0, 1))[:, :, box // 2 - 1 : 0 : -1]
        cube = np.concatenate([half, mirrored], axis=2)
        write_array(path, np.ascontiguousarray(cube.transpose(2, 1, 0)[:, :, : box // 2 + 1]), 1.0)


def mirror(folder: Path) -> None:
    """Flip every volume along z about its centre, the hand of the tomograms changed after the poses were found."""
    change_volumes(folder, lambda v: np.roll(v[::-1], 1, axis=0))


def truncate(folder: Path) -> None:
    """Cut the last hundred bytes off one file."""
    path = one_volume(folder)
    path.write_bytes(path.read_bytes()[:-100])


def repeat_rows(folder: Path) -> None:
    """Append the last three rows again."""
    star = folder / "particles.star"
    lines = [line for line in star.read_text().splitlines() if line.strip()]
    star.write_text("\n".join([*lines, *lines[-3:]]) + "\n")


def blank(folder: Path) -> None:
    """Make one volume constant."""
    volume = read_volume(one_volume(folder))
    write_volume(one_volume(folder), Volume(np.zeros_like(volume.voxels), volume.spacing_angstrom))


def spoil_with_nan(folder: Path) -> None:
    """Put NaN into one voxel."""
    volume = read_volume(one_volume(folder))
    volume.voxels[3, 4, 5] = np.nan
    write_volume(one_volume(folder), volume)


def move_file(folder: Path) -> None:
    """Move one file into another folder beside the STAR."""
    path = one_volume(folder)
    (folder / "elsewhere").mkdir()
    path.replace(folder / "elsewhere" / path.name)


FAULTS = {
    "contrast": Fault(lambda f: change_volumes(f, np.negative), "protein is black"),
    "rotations inverted": Fault(
        lambda f: change_columns(f, _ANGLES, lambda a: -a[:, ::-1]), "another convention", "rotations inverted:"
    ),
    "origin sign": Fault(lambda f: change_columns(f, _ORIGINS, np.negative), "another convention", "origins negated:"),
    "weights z↔x": Fault(swap_weight_axes, "missing wedge of the particles is not where", "tilt axis y, beam z"),
    "spacing ×2": Fault(lambda f: change_volumes(f, lambda v: v, 2.0), "disagree on the voxel spacing", "2 × the STAR"),
    "truncated file": Fault(truncate, "truncated"),
    "duplicated rows": Fault(repeat_rows, "same name"),
    "hand": Fault(mirror, "another convention", "volumes mirrored (z flipped):"),
    "constant volume": Fault(blank, "constant"),
    "NaN": Fault(spoil_with_nan, "NaN"),
    "moved file": Fault(move_file, "does not exist", "elsewhere"),
}
"""The first seven are those a user most often brings; the last four come on top."""


def describe(report: CheckReport) -> list[str]:
    """Every kind of finding, once."""
    return sorted({finding.error.problem for finding in (*report.problems, *report.warnings)})


def judge(report: CheckReport, fault: Fault) -> tuple[bool, list[str]]:
    """Whether the fault is named, and what else is found."""
    matching = [
        finding
        for finding in report.problems
        if fault.named in finding.error.problem and fault.detail in (finding.error.found or "")
    ]
    return bool(matching), [text for text in describe(report) if fault.named not in text]


def right_sets(seed: int) -> dict[str, tuple[list[str], SimulationConfig]]:
    """Sets without a fault: phantoms and settings."""

    def config(**changes: object) -> SimulationConfig:
        settings: dict[str, object] = {"n_per_map": 60, "snr": 0.1, "seed": seed}
        return SimulationConfig(**(settings | changes))  # type: ignore[arg-type]

    return {
        "as the spoiled": (["bilobe", "clamp"], config()),
        "box 24, -51 60": (["wheel", "bar"], config(box_size=24, spacing_angstrom=13.0, tilt_ranges=((-51, 60),))),
        "tilt axis x": (["barrel", "tripod"], config(tilt_axis="x", tilt_ranges=((-60, 40),))),
        "two tilt ranges": (["bilobe", "barrel"], config(tilt_ranges=((-60, 60), (-40, 66)))),
        "60 particles, SNR 0.05": (["clamp", "tripod"], config(n_per_map=30, snr=0.05)),
        "20 particles": (["bilobe", "clamp"], config(n_per_map=10)),
    }


def shuffle_poses(folder: Path) -> None:
    """Deal the angles to other particles, as if they had never been refined."""
    change_columns(folder, _ANGLES, lambda a: np.random.default_rng(0).permutation(a))


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10])
    parser.add_argument("--n", type=positive, default=60, help="particles of each of two phantoms")
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    named, beside, alarms = Counter[str](), {}, {}
    verdicts, seconds, n_right = Counter[str](), [], 0
    margins: dict[str, list[float]] = {}
    for seed in arguments.seeds:
        folder = arguments.out / f"seed{seed}"
        config = SimulationConfig(n_per_map=arguments.n, snr=arguments.snr, seed=seed)
        write_simulation(choose_proteins(["bilobe", "clamp"], []), config, folder / "spoiled", with_poses=True)
        for name, fault in FAULTS.items():
            copy = folder / "copy"
            shutil.copytree(folder / "spoiled", copy)
            fault.spoil(copy)
            began = time.perf_counter()
            report = check_particles(copy / "particles.star", CheckSettings(seed=seed))
            seconds.append(time.perf_counter() - began)
            found, others = judge(report, fault)
            named[name] += found
            if others:
                beside[f"{name}, seed {seed}"] = others
            if report.poses is not None and report.poses.verdict == "other":
                score = report.poses.score(report.poses.found)
                margins.setdefault(name, []).append(round(min(score.over_relion, report.poses.over_shuffled), 1))
            shutil.rmtree(copy)
        for name, (phantoms, settings) in right_sets(seed).items():
            right = folder / "right"
            write_simulation(choose_proteins(phantoms, []), settings, right, with_poses=True)
            for shuffled in (False, True):
                if shuffled:
                    shuffle_poses(right)
                report = check_particles(right / "particles.star", CheckSettings(seed=seed))
                n_right += 1
                label = f"{name}{', poses shuffled' if shuffled else ''}"
                verdicts[f"{label}: {report.poses.verdict if report.poses else 'not tried'}"] += 1
                if findings := describe(report):
                    alarms[f"{label}, seed {seed}"] = findings
                if report.wedge is not None and report.wedge.share is not None:
                    margins.setdefault("least share of a right wedge", []).append(round(report.wedge.share, 2))
            shutil.rmtree(right)
        shutil.rmtree(folder)
    margins["least share of a right wedge"] = [min(margins["least share of a right wedge"])]
    result = {
        "benchmark": "preflight",
        "seeds": arguments.seeds,
        "particles": 2 * arguments.n,
        "snr": arguments.snr,
        "named": {name: f"{named[name]} of {len(arguments.seeds)}" for name in FAULTS},
        "other findings": beside,
        "right sets": n_right,
        "false alarms": alarms,
        "pose verdicts of right sets": dict(sorted(verdicts.items())),
        "margins": margins,
        "median seconds": round(float(np.median(seconds)), 1),
        "cores": os.cpu_count(),
    }
    print(json.dumps(result, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    run(main)
