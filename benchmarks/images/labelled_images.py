"""A model measured on images whose content and transformation are known: what mnist and linemod have in common."""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from benchmarks.command import Overrides, positive
from benchmarks.images.transfer import transfer_scores
from benchmarks.measurements import RESULTS, save_result
from cryodc.clustering import cluster_codes
from cryodc.codes import Codes
from cryodc.dataset import ImageDataset, image_dataset
from cryodc.device import choose_device
from cryodc.errors import InputError
from cryodc.evaluation import composition_scores, disentangle_labels
from cryodc.io import write_array, write_text
from cryodc.models import MODELS, PRESETS, Model, Preset, TrainConfig
from cryodc.runs import RunFolder, load_config, save_codes, save_config
from cryodc.training import checked_config, encode_particles, train

_STACK = "images.mrcs"
_STAR = """
data_optics

loop_
_rlnOpticsGroup #1
_rlnImagePixelSize #2
_rlnImageSize #3
_rlnImageDimensionality #4
1 1.0 {box} 2

data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
{rows}
"""


@dataclass(frozen=True)
class LabelledImages:
    """Images and what is known of each.

    Parameters
    ----------
    images
        ``(n, h, w)``, or ``(n, 3, h, w)`` in colour.
    content, transformation
        ``(n,)`` labels.
    factors
        What these two labels are, for example ``digit`` and ``rotation``.
    """

    images: Float[NDArray[np.float32], "n *image"]
    content: Int[NDArray[np.int64], " n"]
    transformation: Int[NDArray[np.int64], " n"]
    factors: tuple[str, str]

    def select(self, rows: Int[NDArray[np.int64], " m"]) -> "LabelledImages":
        """These images."""
        return LabelledImages(self.images[rows], self.content[rows], self.transformation[rows], self.factors)


def image_parser(description: str | None) -> argparse.ArgumentParser:
    """Options that every benchmark on images takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", choices=sorted(MODELS), default="dualcontrast")
    parser.add_argument("--preset", choices=PRESETS, help="of dualcontrast; by default the paper's")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True, help="the run is made below it")
    parser.add_argument("--epochs", type=positive, help="by default those of the preset")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser


def split(n: int, n_test: int, seed: int) -> tuple[Int[NDArray[np.int64], " a"], Int[NDArray[np.int64], " b"]]:
    """Rows to train on and rows to judge, drawn by the seed."""
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[n_test:]), np.sort(order[:n_test])


def method_name(arguments: argparse.Namespace) -> str:
    """The model, with the preset where it is not the paper's, and the epochs where they are not the preset's."""
    epochs = f"e{arguments.epochs}" if arguments.epochs else None
    return "-".join(part for part in (arguments.model, arguments.preset, epochs) if part)


def measure(
    arguments: argparse.Namespace,
    set_name: str,
    method: str,
    images: LabelledImages,
    n_test: int,
    published: Preset,
    settings: Overrides | None = None,
) -> dict[str, Any]:
    """Train on all images but those kept for the test, encode those, judge their codes, and keep the result.

    Goes on with a run that was stopped.

    Raises
    ------
    InputError
        If the images are no such images, a setting is out of range, or the run there had other settings.
    """
    least = 10 * len(np.unique(images.content))
    if n_test < least:
        raise InputError(
            "too few images for the test",
            file=arguments.data,
            expected=f"{least} of them, 10 for each label",
            found=f"{n_test}, of {len(images.images)} in all",
        )
    training, test = (images.select(rows) for rows in split(len(images.images), n_test, arguments.seed))
    run = RunFolder(arguments.out / f"{set_name}.{arguments.seed}" / method)
    began = time.monotonic()
    resumed, model, codes = encode_test(arguments, run, training, test, arguments.preset or published, settings)
    seconds = round(time.monotonic() - began)
    known = (training.images, training.content), (test.images, test.content)
    result = {
        "set": set_name,
        "method": method,
        "seed": arguments.seed,
        "seconds": None if resumed else seconds,
        "n_training": len(training.images),
        **judge(codes, test, arguments.seed),
        "transfer": transfer_scores(model, codes, *known, arguments.seed),
    }
    save_result(arguments.results, result)
    return result


def encode_test(
    arguments: argparse.Namespace,
    run: RunFolder,
    training: LabelledImages,
    test: LabelledImages,
    preset: Preset,
    settings: Overrides | None = None,
) -> tuple[bool, Model, Codes]:
    """Whether the run had begun before, the trained model, and its codes of the test images.

    Grey images for the test are written into the run folder, so that it can be clustered and shown as any other.
    """
    overrides: Overrides = {section: dict(values) for section, values in (settings or {}).items()}
    overrides["model"] = {**overrides.get("model", {}), "name": arguments.model}
    if training.images.ndim == 4:
        overrides["model"]["channels"] = 3
    if arguments.epochs:
        overrides["optimisation"] = {**overrides.get("optimisation", {}), "epochs": arguments.epochs}
    names = None if test.images.ndim == 4 else [f"{i + 1:06d}@{_STACK}" for i in range(len(test.images))]
    seen = image_dataset(training.images, source=arguments.data)
    unseen = image_dataset(test.images, names, source=arguments.data)
    config = checked_config(preset, seen.box_size, overrides)
    described = {"preset": preset, **describe_run(arguments, run, config, len(seen), unseen)}
    if run.config.exists() and load_config(run) != described:
        raise InputError("the run there had other settings", file=run.config, remedy="choose another --out")
    save_config(run, described)
    if names:
        write_images(run, unseen)
    resumed = (run.checkpoints / "last.pt").exists()
    device = choose_device(arguments.device)
    model = train(seen, config, run, seed=arguments.seed, device=device, resume=resumed)
    views = config.optimisation.encoding_views
    codes = encode_particles(model, unseen, config.views, n_views=views, seed=arguments.seed)
    save_codes(run, codes)
    return resumed, model, codes


def describe_run(
    arguments: argparse.Namespace, run: RunFolder, config: TrainConfig, n_training: int, test: ImageDataset
) -> dict[str, Any]:
    """The content of config.yaml. A run is one of the images for the test: they are what it has codes of."""
    size = {"n_particles": len(test), "box_size": test.box_size, "spacing_angstrom": 1.0}
    return {
        "command": "python -m benchmarks",
        "seed": arguments.seed,
        "star": str(run.particles.resolve()),
        "image_folders": [str(run.path.resolve())],
        "n_training": n_training,
        "dataset": size,
        "input": {"tilt_range": None, "tilt_ranges": None, "tilt_axis": "y", "invert": False},
        **config.model_dump(mode="json"),
    }


def write_images(run: RunFolder, images: ImageDataset) -> None:
    """Write images as a stack and a STAR, as if a pixel were 1 Å."""
    write_array(run.path / _STACK, images.images.numpy(), 1.0)
    rows = "".join(f"{name} 1\n" for name in images.names)
    write_text(run.particles, _STAR.format(box=images.box_size, rows=rows))


def judge(codes: Codes, truth: LabelledImages, seed: int) -> dict[str, Any]:
    """Clusters of the content codes, and what each code tells of each label.

    Accuracies are of logistic regressions, cross-validated among these images, all of them together: their
    transformation is drawn without regard to their content.
    """
    clusters = cluster_codes(codes, len(np.unique(truth.content)), seed=seed)
    scores, whole = composition_scores(clusters.labels, truth.content), np.zeros(len(codes), dtype=np.int64)
    labels = zip(truth.factors, (truth.content, truth.transformation), strict=True)
    rows = [
        disentangle_labels(factor, codes.content_points, codes.transformation, values, whole)
        for factor, values in labels
    ]
    return {
        "n_particles": len(codes),
        "ari": round(scores.ari, 4),
        "accuracy": round(scores.accuracy, 4),
        "stability": round(clusters.stability, 3),
        "disentanglement": [row.to_json() for row in rows],
    }
