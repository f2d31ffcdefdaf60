"""Which model, and the shape of its networks."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

ModelName = Literal["dualcontrast", "harmony", "spatial-vae", "vitae", "vae"]

# The pose that serves as transformation code, by number of dimensions; a plain VAE has none.
RIGID_DIMS = {2: 3, 3: 6}
AFFINE_DIMS = {2: 6, 3: 12}


class ModelConfig(BaseModel, extra="forbid", frozen=True):
    """Shape of the network; saved with every checkpoint.

    Parameters
    ----------
    name
        Which model, see docs/models.md.
    dims
        3 for volumes, 2 for images.
    channels
        Of an image: 1, or 3 in colour; volumes have 1.
    box_size
        Even, 16 to 128 voxels: of what the network sees. Volumes of a larger box are Fourier-cropped.
    content_dims, transformation_dims
        Lengths of the two codes. Where the transformation code is an explicit pose its length follows from
        the model; a VAE has none, length 0.
    width
        Channels of the first convolution; they double at each halving of the box, up to ``max_channels``.
    max_channels
        Channels of the deepest convolution.
    hidden
        Units of the layers between trunk and heads.
    downsampling
        ``stride``: strided convolutions. ``blur``: convolutions, then a binomial filter before every second
        voxel is taken (Zhang, ICML 2019), by which small shifts change the features less.
    blocks_per_level
        Convolutions at each size of the encoder; those beyond the first are residual.
    first_stride
        1 puts one convolution at the full box before the first halving.
    upsampling
        Of the decoder. ``nearest``: every voxel twice along each axis, then a convolution of three, which makes no
        checkerboard. ``transposed``: transposed convolutions with kernels of four, as in runs that do not name it.
    joint_units
        Of the decoder of DualContrast. 0: each code is projected by a layer of its own, and the projections are added.
        Otherwise two hidden layers of so many units follow, in which one code can turn what the other says.
    transformer
        VITAE: ``affine`` transforms, or ``rigid`` ones.
    coordinate_units
        SpatialVAE: units of both hidden layers of the decoder.
    coordinates_per_particle
        SpatialVAE: voxels that are drawn from each particle at each step; all of them where there are fewer.
    """

    name: ModelName = "dualcontrast"
    dims: Literal[2, 3] = 3
    channels: Literal[1, 3] = 1
    box_size: int = Field(ge=16, le=128, multiple_of=2)
    content_dims: int = Field(default=32, ge=1)
    transformation_dims: int = Field(default=16, ge=0)
    width: int = Field(default=16, ge=8, multiple_of=8)
    max_channels: int = Field(default=256, ge=8, multiple_of=8)
    hidden: int = Field(default=256, ge=8)
    downsampling: Literal["stride", "blur"] = "stride"
    blocks_per_level: int = Field(default=1, ge=1)
    first_stride: Literal[1, 2] = 2
    upsampling: Literal["nearest", "transposed"] = "transposed"
    joint_units: int = Field(default=0, ge=0)
    transformer: Literal["affine", "rigid"] = "affine"
    coordinate_units: int = Field(default=500, ge=8)
    coordinates_per_particle: int = Field(default=1024, ge=16)

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and "transformation_dims" not in given:
            length = pose_dims(given.get("name"), given.get("dims", 3), given.get("transformer", "affine"))
            if length is not None:
                return {**given, "transformation_dims": length}
        return given

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        if self.dims == 3 and self.channels != 1:
            raise ValueError("channels: volumes have one channel")
        expected = pose_dims(self.name, self.dims, self.transformer)
        if expected is None and self.transformation_dims < 1:
            raise ValueError("transformation_dims: expected at least 1")
        if expected is not None and self.transformation_dims != expected:
            raise ValueError(f"transformation_dims: the code of {self.name} in {self.dims}D has length {expected}")
        return self

    @property
    def n_values(self) -> int:
        """Numbers in one particle."""
        return self.channels * self.box_size**self.dims


class TemplateConfig(BaseModel, extra="forbid", frozen=True):
    """The codes of volumes that are made of templates, see :mod:`cryodc.templates`.

    Parameters
    ----------
    n_templates
        At most so many are learned; more than there are proteins, so that each may have its own. 0: codes are those of
        the network alone.
    particles_per_template
        At least so many, or there are fewer templates.
    n_particles
        At most so many, drawn at random, are learned from. All are matched.
    wedge_correction
        Take away what the missing wedge does to scores.
    n_axes
        Along so many principal axes of its group the transformation code tells how a particle differs from those like
        it.
    """

    n_templates: int = Field(default=16, ge=0, le=64)
    particles_per_template: int = Field(default=60, ge=10)
    n_particles: int = Field(default=3000, ge=20)
    wedge_correction: bool = True
    n_axes: int = Field(default=5, ge=0, le=20)


def pose_dims(name: str | None, dims: int, transformer: str) -> int | None:
    """Length of the transformation code where it follows from the model, else None.

    Examples
    --------
    >>> pose_dims("harmony", 3, "affine"), pose_dims("vitae", 2, "affine"), pose_dims("dualcontrast", 3, "affine")
    (6, 6, None)
    """
    if name == "vae":
        return 0
    if name in ("harmony", "spatial-vae") or (name == "vitae" and transformer == "rigid"):
        return RIGID_DIMS.get(dims)
    return AFFINE_DIMS.get(dims) if name == "vitae" else None
