"""The models by the names they have in settings and on the command line."""

from cryodc.models.base import Model
from cryodc.models.config import ModelConfig, ModelName
from cryodc.models.dualcontrast import DualContrast
from cryodc.models.harmony import Harmony
from cryodc.models.spatial_vae import SpatialVAE
from cryodc.models.vae import VAE
from cryodc.models.vitae import VITAE

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
