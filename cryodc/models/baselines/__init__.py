"""The models that DualContrast is compared with."""

from cryodc.models.baselines.harmony import Harmony
from cryodc.models.baselines.spatial_vae import SpatialVAE
from cryodc.models.baselines.vae import VAE
from cryodc.models.baselines.vitae import VITAE

__all__ = [
    "VAE",
    "VITAE",
    "Harmony",
    "SpatialVAE",
]
