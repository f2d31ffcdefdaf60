"""Digits, each turned by an angle of its own: what each code tells of the digit and of the angle.

python -m benchmarks.images.mnist --data PATH --model dualcontrast --seed 3 --out runs/

PATH is a CSV file (.csv or .csv.gz), or a folder that holds one: a digit a row, 28 × 28 grey values and then the label.
A fifth of the digits is kept for the test. Angles are uniform in ±90°, the range of the published views; the
transformation label is the quarter of that range. Settings are those of paper-mnist, of another --preset (digits),
or the model's own.
"""

import argparse
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.ndimage import rotate

from benchmarks.command import Overrides, positive, run
from benchmarks.images.labelled_images import LabelledImages, image_parser, measure, method_name
from benchmarks.measurements import find_result
from cryodc.errors import InputError

EDGE = 28
MAX_DEGREES = 90.0
_N_BINS = 4


def read_digits(path: Path) -> tuple[Float[NDArray[np.float32], "n h w"], Int[NDArray[np.int64], " n"]]:
    """Upright digits in [0, 1], and which each is.

    Raises
    ------
    InputError
        If there is no such file, or a row is not 28 × 28 numbers and a digit.
    """
    file = _find(path)
    try:
        table = np.genfromtxt(file, delimiter=",", ndmin=2)
    except (ValueError, OSError) as error:
        found = " ".join(str(error).split())[:120]
        raise InputError("this is not a table of numbers", file=file, found=found) from error
    if table.shape[1] != EDGE * EDGE + 1:
        raise InputError(
            "these are not digits", file=file, expected=f"{EDGE * EDGE + 1} columns", found=str(table.shape[1])
        )
    bad = ~np.isfinite(table).all(axis=1) | ~np.isin(table[:, -1], np.arange(10))
    if bad.any():
        row = int(np.flatnonzero(bad)[0]) + 1
        raise InputError("this row is no digit", file=file, row=row, expected="numbers, the last one 0 to 9")
    return (table[:, :-1] / 255).reshape(-1, EDGE, EDGE).astype(np.float32), table[:, -1].astype(np.int64)


def turn_digits(
    images: Float[NDArray[np.float32], "n h w"], labels: Int[NDArray[np.int64], " n"], seed: int
) -> LabelledImages:
    """Each digit turned about the middle of its box, counter-clockwise as it is looked at."""
    degrees = np.random.default_rng(seed).uniform(-MAX_DEGREES, MAX_DEGREES, size=len(images))
    turned = [rotate(image, angle, reshape=False, order=1) for image, angle in zip(images, degrees, strict=True)]
    return LabelledImages(np.stack(turned), labels, rotation_bins(degrees), ("digit", "rotation"))


def rotation_bins(degrees: Float[NDArray[np.float64], " n"]) -> Int[NDArray[np.int64], " n"]:
    """Quarter of the range that each angle lies in.

    Examples
    --------
    >>> rotation_bins(np.array([-89.0, -1.0, 1.0, 46.0])).tolist()
    [0, 1, 2, 3]
    """
    edges = np.linspace(-MAX_DEGREES, MAX_DEGREES, _N_BINS + 1)[1:-1]
    return np.searchsorted(edges, degrees).astype(np.int64)


def main() -> None:
    """Measure one model for one seed."""
    parser = image_parser(__doc__)
    parser.add_argument("--n", type=positive, help="digits, drawn by the seed; by default all")
    arguments = parser.parse_args()
    measure_digits(arguments, method_name(arguments))


def measure_digits(arguments: argparse.Namespace, method: str, settings: Overrides | None = None) -> None:
    """Train and judge on digits, unless the result is there.

    Parameters
    ----------
    arguments
        Those of :func:`main`.
    method
        Its name in the result.
    settings
        In place of the preset's.
    """
    set_name = f"mnist-n{arguments.n}" if arguments.n else "mnist"
    if find_result(arguments.results, set_name, method, arguments.seed):
        return
    images, labels = read_digits(arguments.data)
    if arguments.n:
        if arguments.n > len(images):
            expected = f"at most {len(images)}"
            raise InputError(
                "there are not so many digits", file=arguments.data, expected=expected, found=str(arguments.n)
            )
        rows = np.random.default_rng(arguments.seed).permutation(len(images))[: arguments.n]
        images, labels = images[rows], labels[rows]
    digits = turn_digits(images, labels, arguments.seed)
    measure(arguments, set_name, method, digits, len(labels) // 5, "paper-mnist", settings)


def _find(path: Path) -> Path:
    files = sorted(path.glob("*.csv*")) if path.is_dir() else [path]
    if len(files) != 1 or not files[0].exists():
        found = f"{len(files)} such files" if path.is_dir() else "no such file"
        raise InputError("no table of digits", file=path, expected="one .csv or .csv.gz file", found=found)
    return files[0]


if __name__ == "__main__":
    run(main)
