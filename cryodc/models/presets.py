"""Presets of training settings: published ones by name, and those that win this package's benchmarks."""

import copy
import math
from typing import Any, Literal, get_args

from cryodc.dataset import ViewConfig
from cryodc.models.config import TrainConfig

Preset = Literal["default", "paper", "digits", "paper-mnist", "paper-linemod", "paper-starmen"]
PRESETS: tuple[str, ...] = get_args(Preset)
Settings = dict[str, dict[str, Any]]
# One view of each pair is the particle as recorded, and the wedge turns with the other.
_AS_RECORDED: dict[str, Any] = {
    "rotation": "vector",
    "max_shift_voxels": 0.0,
    "rotate_both": False,
    "reimpose_weight": False,
    "low_pass_shells": None,
}
# arXiv 2405.16796 and its released code: γ = 3/50, β = 0.01 per voxel, 3 × MSE, Adam 1e-4, batch 50, 150 epochs.
PAPER: Settings = {
    "model": {"content_dims": 50, "transformation_dims": 50, "upsampling": "transposed"},
    "loss": {
        "content_loss": "cosine",
        "similarity": "absolute",
        "reconstruction_weight": 3.0,
        "kl_weight": 0.01,
        "content_weight": 3 / 50,
        "transformation_weight": 3 / 50,
        "centred_transformation": False,
        "independence_weight": 0.0,
        "found_content": False,
        "found_poses": False,
        "found_averages": False,
        "decoded_noise": False,
    },
    "views": _AS_RECORDED,
    "templates": {"n_templates": 0},
    "optimisation": {
        "epochs": 150,
        "batch_size": 50,
        "learning_rate": 1e-4,
        "weight_decay": 0.0,
        "schedule": "step",
        "transformation_every": 1,
        "encoding_views": 1,
    },
}
# What the paper changes for each of its sets of images.
IMAGES: dict[str, Settings] = {
    "paper-mnist": {
        "model": {"content_dims": 10, "transformation_dims": 10},
        "optimisation": {"epochs": 100, "batch_size": 100},
    },
    "paper-linemod": {
        "model": {"content_dims": 16, "transformation_dims": 16, "channels": 3},
        "optimisation": {"epochs": 200},
    },
    "paper-starmen": {
        "model": {"content_dims": 16, "transformation_dims": 16},
        "optimisation": {"epochs": 100},
    },
}
# What wins on handwritten digits: content contrasted between views that are drawn otherwise, decoded with a
# transformation code that has room for how an image is turned and none for what it is.
DIGITS: Settings = {
    "model": {
        "dims": 2,
        "content_dims": 64,
        "transformation_dims": 2,
        "max_channels": 256,
        "blocks_per_level": 2,
        "first_stride": 1,
        "upsampling": "transposed",
        "joint_units": 512,
    },
    "loss": {
        "temperature": 0.1,
        "similarity": "signed",
        "kl_weight": 0.05,
        "transformation_kl_weight": 1.0,
        "exchange_contents": True,
        "contrast_apart": True,
        "content_weight": 2.0,
        "transformation_weight": 0.1,
        "centred_transformation": False,
        "independence_weight": 0.0,
        "shared_transformation": "posterior",
        "decoded_noise": False,
    },
    "views": {
        "rotation": "vector",
        "max_shift_voxels": 1.0,
        "stretch": 0.25,
        "elastic_voxels": 1.0,
        "low_pass_shells": None,
        "cutout_share": 0.1,
    },
    "templates": {"n_templates": 0},
    "optimisation": {
        "epochs": 60,
        "batch_size": 128,
        "learning_rate": 3e-3,
        "transformation_every": 4,
        "encoding_views": 32,
        "ema_decay": 0.995,
    },
}
# Common to the models the paper compares with: particles as recorded, codes as encoded.
_RECORDED: Settings = {
    "model": {"upsampling": "transposed"},
    "loss": {"kl_weight": 2.0},
    "views": _AS_RECORDED,
    "templates": {"n_templates": 0},
    "optimisation": {
        "epochs": 100,
        "batch_size": 100,
        "learning_rate": 1e-4,
        "weight_decay": 0.0,
        "schedule": "constant",
        "encoding_views": 1,
    },
}
# CVPR 2022: content of length 1, shifts of ±4 voxels, Adam 1e-4, batch 50, 200 epochs.
_HARMONY: Settings = {
    "model": {"content_dims": 1},
    "loss": {"kl_weight": 1.0},
    "views": {"max_shift_voxels": 4.0},
    "optimisation": {"epochs": 200, "batch_size": 50},
}
# NeurIPS 2019, both.
_SPATIAL: Settings = {"model": {"content_dims": 16}}
_VITAE: Settings = {"model": {"content_dims": 16}, "loss": {"kl_warm_up_epochs": 10}}
_VAE: Settings = {"model": {"content_dims": 16}}
BASELINES: dict[str, Settings] = {"harmony": _HARMONY, "spatial-vae": _SPATIAL, "vitae": _VITAE, "vae": _VAE}


def preset_config(
    preset: Preset, box_size: int, overrides: Settings | None = None, n_particles: int | None = None
) -> TrainConfig:
    """A preset with some settings replaced.

    Parameters
    ----------
    preset
        For DualContrast ``default``: what wins this package's benchmarks; ``paper``: the published objective and
        settings for subtomograms; ``paper-mnist``, ``paper-linemod``, ``paper-starmen``: those for images;
        ``digits``: what wins on images of handwritten digits. Of every other model there is one preset, its
        published settings, by all these names.
    box_size
        Of the particles, voxels. ``model.box_size`` follows from it and from what views show, see
        :func:`network_box`.
    overrides
        By section and name: ``{"loss": {"temperature": 0.1}}``; ``model.name`` chooses the model.
    n_particles
        If templates are learned from so many, epochs and views that are not set are those of :func:`beside_templates`.

    Raises
    ------
    pydantic.ValidationError
        If a setting is unknown or out of range.
    """
    overrides = overrides or {}
    settings: Settings = {"model": {}}
    for source in (*_sources(preset, overrides.get("model", {})), overrides):
        for section, values in copy.deepcopy(source).items():
            settings.setdefault(section, {}).update(values)
    if "box_size" not in settings["model"]:
        flat = settings["model"].get("dims", 3) == 2
        views = ViewConfig.model_validate(settings.get("views", {}))
        settings["model"]["box_size"] = box_size if flat else network_box(box_size, views)
    config = TrainConfig.model_validate(settings)
    if n_particles is None or config.model.dims == 2 or config.templates.n_of(n_particles) == 0:
        return config
    settings["optimisation"] = {**beside_templates(n_particles), **settings.get("optimisation", {})}
    return TrainConfig.model_validate(settings)


def beside_templates(n_particles: int) -> dict[str, int]:
    """Epochs and views with which a network takes at most a third of the time of training.

    Measured at box 20, in CPU milliseconds for each particle: an epoch 6.5, a view that is encoded 0.8, learning and
    matching templates 87 (at most 3,000 particles are learned from, and beyond those it is about 23). Time is not
    looked at, so that the same particles have the same codes.

    Examples
    --------
    >>> [beside_templates(n)["epochs"] for n in (120, 3000, 6000, 100_000)]
    [4, 4, 2, 1]
    """
    return {"epochs": max(1, min(4, round(12_000 / n_particles))), "encoding_views": 4}


def network_box(box_size: int, views: ViewConfig) -> int:
    """The smallest even box that holds every shell that views of volumes show, and one more.

    A network that never sees what lies beyond need not carry it: at box 20 a step costs a third of what it does at box
    32. Of at least 16 voxels, and at most the particles' own.

    Examples
    --------
    >>> network_box(64, ViewConfig(low_pass_shells=(3.0, 9.0))), network_box(64, ViewConfig(low_pass_shells=None))
    (20, 64)
    """
    if views.low_pass_shells is None:
        return box_size
    return min(box_size, max(16, 2 * (math.ceil(views.low_pass_shells[1]) + 1)))


def _sources(preset: Preset, model: dict[str, Any]) -> list[Settings]:
    name = model.get("name", "dualcontrast")
    flat = preset in IMAGES or preset == "digits"
    images: list[Settings] = [{"model": {"dims": 2}}] if flat else []
    if name in BASELINES:
        # In space a particle is turned and shifted, and nothing stretches it.
        rigid = name == "vitae" and model.get("dims", 3) == 3 and not flat
        space: list[Settings] = [{"model": {"transformer": "rigid"}}] if rigid else []
        return [_RECORDED, BASELINES[name], *space, *images]
    if preset == "default":
        return []
    if preset == "digits":
        return [DIGITS]
    return [PAPER, *images, IMAGES.get(preset, {})]
