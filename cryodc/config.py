"""Settings of a training run, and presets: published ones by name, and those that win this package's benchmarks."""

import copy
import math
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, model_validator

from cryodc.data.views import ViewConfig
from cryodc.models.config import ModelConfig, TemplateConfig
from cryodc.models.losses import Similarity

Preset = Literal["default", "paper", "digits", "paper-mnist", "paper-linemod", "paper-starmen"]
PRESETS: tuple[str, ...] = get_args(Preset)

Settings = dict[str, dict[str, Any]]


class LossConfig(BaseModel, extra="forbid", frozen=True):
    """Terms of the objective and their weights; a model without a term does without its weight.

    Parameters
    ----------
    content_loss
        ``infonce`` or the published ``cosine``.
    temperature
        Of InfoNCE.
    similarity
        ``absolute``: |cos| as published; ``signed``: cos, clipped at 0.
    reconstruction_weight
        Of the mean squared error per voxel.
    kl_weight
        β, of all KL divergences; divided by the number of voxels. 2 is the evidence lower bound under noise of
        variance 1. Harmony's divergence between two views is divided by the length of the content code instead.
    transformation_kl_weight
        β of the transformation code's divergence in DualContrast, where it is not ``kl_weight``.
    kl_warm_up_epochs
        β rises from 0 over so many epochs.
    content_weight, transformation_weight
        γ_c and γ_z.
    centred_transformation
        Transformation codes are compared less their mean over the batch. Compared as they are, as published, all of
        them may come to lie in one direction.
    independence_weight
        Of what the transformation code tells of the content code, which this term does not change.
    shared_transformation
        What step B decodes with two contents: ``prior`` draws ``z* ~ N(0, I)``, as published; ``posterior`` takes the
        transformation codes of other particles of the batch, which lie where the decoder has learned.
    exchange_contents
        Decode each of the two views with the content code of the other: what differs between them, how a particle is
        turned first of all, can then only come from the transformation code.
    contrast_apart
        Contrast the content codes of two further views. Where views of images are stretched and bent, only these are:
        what is decoded is turned and shifted alone, so the transformation code need not say how it is drawn.
    decoded_noise
        In step B, give decoded volumes the wedge and the noise of recorded particles before encoding them.
    """

    content_loss: Literal["infonce", "cosine"] = "infonce"
    temperature: float = Field(default=0.2, gt=0)
    similarity: Similarity = "absolute"
    reconstruction_weight: float = Field(default=1.0, ge=0)
    kl_weight: float = Field(default=0.1, ge=0)
    transformation_kl_weight: float | None = Field(default=None, ge=0)
    kl_warm_up_epochs: int = Field(default=0, ge=0)
    content_weight: float = Field(default=1.0, ge=0)
    transformation_weight: float = Field(default=0.5, ge=0)
    centred_transformation: bool = True
    independence_weight: float = Field(default=1.0, ge=0)
    shared_transformation: Literal["prior", "posterior"] = "prior"
    exchange_contents: bool = False
    contrast_apart: bool = False
    decoded_noise: bool = True


class OptimisationConfig(BaseModel, extra="forbid", frozen=True):
    """How the losses are minimised.

    Parameters
    ----------
    epochs
        Passes over the particles.
    batch_size
        Particles per step, and per process.
    learning_rate
        Of both optimisers.
    weight_decay
        Decoupled (AdamW); 0 is plain Adam.
    schedule
        ``cosine``: one warm-up epoch, then to zero. ``step``: ×0.1 every 50 epochs, as published. ``constant``: the
        same throughout.
    precision
        ``bfloat16`` runs the network under autocast; Fourier transforms and losses stay float32.
    transformation_every
        Step B is taken at every so many batches.
    encoding_views
        Random views a content code is averaged over when particles are encoded.
    weight_averaging
        Particles are encoded with a running mean of the network's weights, which keeps this share of itself at each
        step; None: with the weights as they are after the last step.
    """

    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    precision: Literal["float32", "bfloat16"] = "float32"
    transformation_every: int = Field(default=2, ge=1)
    encoding_views: int = Field(default=16, ge=1)
    weight_averaging: float | None = Field(default=None, gt=0, lt=1)


class TrainConfig(BaseModel, extra="forbid", frozen=True):
    """Everything that decides what a training run computes, but for the data and the seed."""

    model: ModelConfig
    loss: LossConfig = LossConfig()
    views: ViewConfig = ViewConfig()
    optimisation: OptimisationConfig = OptimisationConfig()
    templates: TemplateConfig = TemplateConfig()

    @model_validator(mode="after")
    def _check_views(self) -> "TrainConfig":
        if self.model.dims == 3 and (self.views.stretch > 0 or self.views.bend_voxels > 0):
            raise ValueError("views.stretch, views.bend_voxels: only images are stretched or bent")
        return self


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
    "model": {"content_dims": 50, "transformation_dims": 50},
    "loss": {
        "content_loss": "cosine",
        "similarity": "absolute",
        "reconstruction_weight": 3.0,
        "kl_weight": 0.01,
        "content_weight": 3 / 50,
        "transformation_weight": 3 / 50,
        "centred_transformation": False,
        "independence_weight": 0.0,
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
        "bend_voxels": 1.0,
        "low_pass_shells": None,
        "hidden_share": 0.1,
    },
    "templates": {"n_templates": 0},
    "optimisation": {
        "epochs": 60,
        "batch_size": 128,
        "learning_rate": 3e-3,
        "transformation_every": 4,
        "encoding_views": 32,
        "weight_averaging": 0.995,
    },
}

# Common to the models the paper compares with: particles as recorded, codes as encoded.
_RECORDED: Settings = {
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


def preset_config(preset: Preset, box_size: int, overrides: Settings | None = None) -> TrainConfig:
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
    return TrainConfig.model_validate(settings)


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
