"""Settings of a training run: the model and its networks, losses, optimisation and templates."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from cryodc.dataset import ViewConfig
from cryodc.models.losses import Similarity

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
        checkerboard. ``transposed``: transposed convolutions with kernels of four, as published.
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
    upsampling: Literal["nearest", "transposed"] = "nearest"
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
    moments
        Where some groups of particles give no template, content codes also tell what needs none: power and radial
        profiles of particles.
    n_axes
        Along so many principal axes of its group the transformation code tells how a particle differs from those like
        it.
    """

    n_templates: int = Field(default=16, ge=0, le=64)
    particles_per_template: int = Field(default=60, ge=10)
    n_particles: int = Field(default=3000, ge=20)
    wedge_correction: bool = True
    moments: bool = True
    n_axes: int = Field(default=5, ge=0, le=20)

    def n_of(self, n_particles: int) -> int:
        """How many templates are looked for among so many particles; 0 where there are too few for two."""
        n_templates = min(self.n_templates, min(n_particles, self.n_particles) // self.particles_per_template)
        return 0 if n_templates < 2 else n_templates


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
    found_content, found_poses, found_averages
        Where templates were learned first, pairs are those that they found, and not made: particles of one group and
        of others; poses that differ by a known rotation; and the average of the group that a particle is decoded to.
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
    found_content: bool = True
    found_poses: bool = True
    found_averages: bool = False
    decoded_noise: bool = True


class OptimisationConfig(BaseModel, extra="forbid", frozen=True):
    """How the losses are minimised.

    Parameters
    ----------
    epochs
        Passes over the particles; 0: no network is trained, and codes are those of templates alone.
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
    ema_decay
        Particles are encoded with a running mean of the network's weights, which keeps this share of itself at each
        step; None: with the weights as they are after the last step.
    """

    epochs: int = Field(default=20, ge=0)
    batch_size: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    precision: Literal["float32", "bfloat16"] = "float32"
    transformation_every: int = Field(default=2, ge=1)
    encoding_views: int = Field(default=16, ge=1)
    ema_decay: float | None = Field(default=None, gt=0, lt=1)


class TrainConfig(BaseModel, extra="forbid", frozen=True):
    """Everything that decides what a training run computes, but for the data and the seed."""

    model: ModelConfig
    loss: LossConfig = LossConfig()
    views: ViewConfig = ViewConfig()
    optimisation: OptimisationConfig = OptimisationConfig()
    templates: TemplateConfig = TemplateConfig()

    @model_validator(mode="after")
    def _check_views(self) -> "TrainConfig":
        if self.model.dims == 3 and (self.views.stretch > 0 or self.views.elastic_voxels > 0):
            raise ValueError("views.stretch, views.elastic_voxels: only images are stretched or bent")
        return self
