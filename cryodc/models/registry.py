"""The models by the names they have in settings and on the command line."""

from cryodc.models import dualcontrast
from cryodc.models.base import Model
from cryodc.models.baselines import VAE, VITAE, Harmony, SpatialVAE, harmony, spatial_vae, vae, vitae
from cryodc.models.config import ModelConfig, ModelName
from cryodc.models.dualcontrast import DualContrast
from cryodc.models.steps import Objective

MODELS: dict[ModelName, type[Model]] = {
    "dualcontrast": DualContrast,
    "harmony": Harmony,
    "spatial-vae": SpatialVAE,
    "vitae": VITAE,
    "vae": VAE,
}


def build_model(config: ModelConfig) -> Model:
    """A model with fresh weights."""
    return MODELS[config.name](config)


OBJECTIVES: dict[ModelName, Objective] = {
    "dualcontrast": dualcontrast.OBJECTIVE,
    "harmony": harmony.OBJECTIVE,
    "spatial-vae": spatial_vae.OBJECTIVE,
    "vitae": vitae.OBJECTIVE,
    "vae": vae.OBJECTIVE,
}
