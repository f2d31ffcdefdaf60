"""The objective of each model."""

from cryodc.models.config import ModelName
from cryodc.objectives import dualcontrast, harmony, spatial_vae, vae, vitae
from cryodc.objectives.steps import Objective

OBJECTIVES: dict[ModelName, Objective] = {
    "dualcontrast": dualcontrast.OBJECTIVE,
    "harmony": harmony.OBJECTIVE,
    "spatial-vae": spatial_vae.OBJECTIVE,
    "vitae": vitae.OBJECTIVE,
    "vae": vae.OBJECTIVE,
}
