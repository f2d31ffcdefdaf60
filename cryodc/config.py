"""Settings of a training run, and the two presets."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from cryodc.data.views import ViewConfig
from cryodc.models.dualcontrast import ModelConfig
from cryodc.models.losses import Similarity

Preset = Literal["default", "paper"]


class LossConfig(BaseModel, extra="forbid", frozen=True):
    """Terms of the objective and their weights.

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
        β, of both KL divergences; divided by the number of voxels.
    content_weight, transformation_weight
        γ_c and γ_z.
    decoded_noise
        In step B, give decoded volumes the wedge and the noise of recorded particles before encoding them.
    """

    content_loss: Literal["infonce", "cosine"] = "infonce"
    temperature: float = Field(default=0.2, gt=0)
    similarity: Similarity = "absolute"
    reconstruction_weight: float = Field(default=1.0, ge=0)
    kl_weight: float = Field(default=0.1, ge=0)
    content_weight: float = Field(default=1.0, ge=0)
    transformation_weight: float = Field(default=0.5, ge=0)
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
        ``cosine``: one warm-up epoch, then to zero. ``step``: ×0.1 every 50 epochs, as published.
    precision
        ``bfloat16`` runs the network under autocast; Fourier transforms and losses stay float32.
    transformation_every
        Step B is taken at every so many batches.
    encoding_views
        Random views a content code is averaged over when particles are encoded.
    """

    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    schedule: Literal["cosine", "step"] = "cosine"
    precision: Literal["float32", "bfloat16"] = "float32"
    transformation_every: int = Field(default=2, ge=1)
    encoding_views: int = Field(default=16, ge=1)


class TrainConfig(BaseModel, extra="forbid", frozen=True):
    """Everything that decides what a training run computes, but for the data and the seed."""

    model: ModelConfig
    loss: LossConfig = LossConfig()
    views: ViewConfig = ViewConfig()
    optimisation: OptimisationConfig = OptimisationConfig()


# arXiv 2405.16796 and its released code: γ = 3/50, β = 0.01 per voxel, 3 × MSE, Adam 1e-4, batch 50, 150 epochs.
PAPER: dict[str, dict[str, Any]] = {
    "model": {"content_dims": 50, "transformation_dims": 50},
    "loss": {
        "content_loss": "cosine",
        "similarity": "absolute",
        "reconstruction_weight": 3.0,
        "kl_weight": 0.01,
        "content_weight": 3 / 50,
        "transformation_weight": 3 / 50,
        "decoded_noise": False,
    },
    "views": {
        "rotation": "vector",
        "max_shift_voxels": 0.0,
        "rotate_both": False,
        "reimpose_weight": False,
        "low_pass_shells": None,
    },
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


def preset_config(preset: Preset, box_size: int, overrides: dict[str, dict[str, Any]] | None = None) -> TrainConfig:
    """A preset with some settings replaced.

    Parameters
    ----------
    preset
        ``default``: what wins this package's benchmarks. ``paper``: the published objective and settings.
    box_size
        Of the particles, voxels.
    overrides
        By section and name: ``{"loss": {"temperature": 0.1}}``.

    Raises
    ------
    pydantic.ValidationError
        If a setting is unknown or out of range.
    """
    settings: dict[str, dict[str, Any]] = {"model": {"box_size": box_size}}
    for source in (PAPER if preset == "paper" else {}, overrides or {}):
        for section, values in source.items():
            settings.setdefault(section, {}).update(values)
    return TrainConfig.model_validate(settings)
