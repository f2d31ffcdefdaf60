"""How views of particles are made: the settings."""

from typing import Literal

from pydantic import BaseModel, Field, model_validator


class ViewConfig(BaseModel, extra="forbid", frozen=True):
    """How views are drawn.

    Parameters
    ----------
    rotation
        ``uniform``: of all orientations. ``vector``: a rotation vector with each component in ±90°, as published; in
        2D an angle in ±90°. ``none``: views are not rotated, which is there to measure what rotating buys.
    max_shift_voxels
        Random shift, uniform in a cube (2D: square) of ± this, in voxels of the particles: picks are never centred.
    rotate_both
        Both views of a pair are rotated; otherwise the first is the particle as recorded, as published.
    stretch
        Images: each view is stretched and sheared by the exponential of a 2 × 2 matrix whose entries are uniform in ±
        this. A content code made equal for such views is that of a shape however it was drawn.
    elastic_voxels
        Images: each view is bent by smooth random displacements of this standard deviation, drawn at nodes a quarter of
        the box apart and interpolated between them (Simard et al., ICDAR 2003).
    reimpose_weight
        Re-impose the particle's own weight after rotating.
    low_pass_shells
        The encoder sees each view up to a random shell (cycles per box) between these two; None: all of it. A
        particle as recorded is seen up to the middle of the range.
    fresh_noise
        Standard deviation of white noise added to each random view, in standard deviations of the particle.
    cutout_share
        Share of the box that one cube (2D: square), drawn for each random view, hides from the encoder.
    masked
        Views are seen through a soft sphere (2D: disc). Without it the corners, which rotating leaves empty, tell a
        view from the particle as recorded.
    """

    rotation: Literal["uniform", "vector", "none"] = "uniform"
    max_shift_voxels: float = Field(default=2.0, ge=0)
    rotate_both: bool = True
    stretch: float = Field(default=0.0, ge=0, le=1)
    elastic_voxels: float = Field(default=0.0, ge=0)
    reimpose_weight: bool = True
    low_pass_shells: tuple[float, float] | None = (3.0, 9.0)
    fresh_noise: float = Field(default=0.0, ge=0)
    cutout_share: float = Field(default=0.0, ge=0, le=0.5)
    masked: bool = True

    @model_validator(mode="after")
    def _check_range(self) -> "ViewConfig":
        if self.low_pass_shells is not None and not 0 < self.low_pass_shells[0] <= self.low_pass_shells[1]:
            raise ValueError("low_pass_shells: expected 0 < lowest <= highest")
        return self
