"""Networks, losses and steps of training; settings and presets."""

from cryodc.models.base import Model, Placement, PosedModel, full_precision
from cryodc.models.config import ModelConfig, ModelName, TemplateConfig, TrainConfig
from cryodc.models.networks import (
    Decoder,
    Encoder,
    Gaussian,
    Posterior,
    certain,
    gaussian,
    set_to_zero,
    with_channels,
    without_channels,
)
from cryodc.models.presets import PRESETS, Preset, preset_config
from cryodc.models.registry import MODELS, OBJECTIVES, build_model
from cryodc.models.steps import Batch, Found, Objective, Step, autocast, beta, draw_views, kl_weight

__all__ = [
    "MODELS",
    "OBJECTIVES",
    "PRESETS",
    "Batch",
    "Decoder",
    "Encoder",
    "Found",
    "Gaussian",
    "Model",
    "ModelConfig",
    "ModelName",
    "Objective",
    "Placement",
    "PosedModel",
    "Posterior",
    "Preset",
    "Step",
    "TemplateConfig",
    "TrainConfig",
    "autocast",
    "beta",
    "build_model",
    "certain",
    "draw_views",
    "full_precision",
    "gaussian",
    "kl_weight",
    "preset_config",
    "set_to_zero",
    "with_channels",
    "without_channels",
]
