"""A STAR of a million particles in RELION 5's layout: time and peak memory of reading, writing and comparing it.

python -m benchmarks.files.million_rows --rows 1000000

Each step runs in a process of its own, so that its peak memory is its own. Prints one JSON line. The images the
STAR names do not exist: only metadata is measured.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cryodc.particles import read_particles, with_classes
from cryodc.star import compare_stars, read_star, write_star

_HEADER = """
# version 50001

data_general

_rlnTomoSubTomosAre2DStacks                       0


# version 50001

data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnTomoTiltSeriesPixelSize #5
_rlnImagePixelSize #6
_rlnImageSize #7
_rlnImageDimensionality #8
_rlnTomoSubtomogramBinning #9
  1    optics1   300.000000     2.700000     1.350000    10.000000       48            3     7.407407


# version 50001

data_particles

loop_
"""
_LABELS = """
rlnTomoName rlnTomoSubtomogramRot rlnTomoSubtomogramTilt rlnTomoSubtomogramPsi rlnAngleRot rlnAngleTilt
rlnAnglePsi rlnAngleTiltPrior rlnAnglePsiPrior rlnOpticsGroup rlnTomoParticleName rlnTomoVisibleFrames
rlnImageName rlnCtfImage rlnOriginXAngst rlnOriginYAngst rlnOriginZAngst rlnCenteredCoordinateXAngst
rlnCenteredCoordinateYAngst rlnCenteredCoordinateZAngst rlnGroupNumber rlnClassNumber rlnNormCorrection
rlnRandomSubset rlnLogLikeliContribution rlnMaxValueProbDistribution rlnNrOfSignificantSamples
"""
_PER_TOMOGRAM = 5000


def write_example(path: Path, n_rows: int) -> None:
    """Write the STAR, 5,000 particles in a tomogram, as RELION 5 lays it out."""
    rng = np.random.default_rng(0)
    frames = "[" + ",".join(["1"] * 40) + "]"
    with path.open("w", encoding="utf-8") as file:
        file.write(_HEADER + "".join(f"_{label} #{i} \n" for i, label in enumerate(_LABELS.split(), start=1)))
        for start in range(0, n_rows, _PER_TOMOGRAM):
            tomogram = f"TS_{start // _PER_TOMOGRAM + 1:03d}"
            numbers = rng.uniform(-180, 180, (min(_PER_TOMOGRAM, n_rows - start), 12)).tolist()
            for i, row in enumerate(numbers, start=1):
                a = [f"{number:12.6f}" for number in row]
                image = f"Extract/job071/Subtomograms/{tomogram}/{i}"
                file.write(
                    f"    {tomogram} {a[0]} {a[1]} {a[2]} {a[3]} {a[4]} {a[5]}    90.000000     0.000000"
                    f"            1 {tomogram}/{i} {frames} {image}_data.mrc {image}_weights.mrc {a[6]} {a[7]} {a[8]} "
                    f"{a[9]} {a[10]} {a[11]}            1            1     1.000000            {1 + i % 2} "
                    f"1.746160e+06     0.018746          114 \n"
                )
        file.write(" \n")


def _read_particles(source: Path, out: Path) -> None:
    read_particles(source, check_images=False)


def _read_and_write(source: Path, out: Path) -> None:
    write_star(read_star(source), out / "same.star")


def _set_classes(source: Path, out: Path) -> None:
    document = read_star(source)
    classes = np.arange(document.block("particles").n_rows, dtype=np.int64) % 7 + 1
    write_star(with_classes(document, classes), out / "classes.star")


def _compare(source: Path, out: Path) -> None:
    comparison = compare_stars(source, out / "classes.star")
    if [label for block in comparison.blocks for label in block.columns] != ["rlnClassNumber"]:
        raise SystemExit("more than rlnClassNumber differs")


STEPS: dict[str, Callable[[Path, Path], None]] = {
    "read_particles": _read_particles,
    "read_and_write": _read_and_write,
    "set_classes": _set_classes,
    "compare": _compare,
}


def measure(step: str, source: Path, out: Path) -> dict[str, float]:
    """Run one step in a new process; seconds without imports, and the peak of its resident memory."""
    command = [sys.executable, __file__, "--step", step, "--source", str(source), "--out", str(out)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(finished.stdout)
    return result


def main() -> None:
    """Measure every step, or, called by itself, run one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        began = time.monotonic()
        STEPS[arguments.step](arguments.source, arguments.out)
        seconds = time.monotonic() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"seconds": round(seconds, 1), "peak_gib": round(peak, 2)}))
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "particles.star"
        write_example(source, arguments.rows)
        result = {
            "benchmark": "million_rows",
            "rows": arguments.rows,
            "megabytes": round(source.stat().st_size / 1e6),
            "steps": {step: measure(step, source, Path(folder)) for step in STEPS},
            "hardware": {"machine": platform.machine(), "cores": os.cpu_count()},
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
