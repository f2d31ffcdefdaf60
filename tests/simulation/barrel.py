"""One small protein, its box and voxel spacing."""

from cryodc.simulation import phantom

N, SPACING = 32, 10.0
BARREL = {"barrel": phantom("barrel")}
