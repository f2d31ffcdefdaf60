"""The interface of every model: encode particles, decode codes, and place an image by a pose."""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cryodc.models.config import ModelConfig
from cryodc.models.networks import Posterior


def full_precision(tensor: Tensor) -> torch.autocast:
    """A context in which geometry is computed in float32: rounded to bfloat16 a position is off by voxels."""
    return torch.autocast(tensor.device.type, enabled=False)


class Placement(NamedTuple):
    """``particle(x) = canonical(M x + t)``: matrices ``(b, k, k)`` and offsets ``(b, k)`` in voxels, zyx or yx."""

    matrices: Tensor
    offsets_voxels: Tensor


class Model(nn.Module, ABC):
    """A network with a content code and a transformation code, in 2D or 3D.

    Attributes
    ----------
    directional
        Whether content codes are compared by their direction alone, as a contrast by cosine makes them.
    """

    directional: ClassVar[bool] = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def encode(self, images: Float[Tensor, "b *image"]) -> Posterior:
        """``q(c, z | x)`` of standardised particles.

        Parameters
        ----------
        images
            ``(b, d, h, w)`` in 3D; ``(b, h, w)``, or in colour ``(b, ch, h, w)``, in 2D.
        """

    @abstractmethod
    def decode(self, content: Float[Tensor, "b c"], transformation: Float[Tensor, "b z"]) -> Float[Tensor, "b *image"]:
        """``p(x | c, z)``: mean particles, no wedge missing, shaped as :meth:`encode` takes them."""

    def parts(self) -> dict[str, nn.Module]:
        """The parts that have an optimiser of their own, by name; ``all`` is the whole model."""
        return {"all": self}


class PosedModel(Model):
    """A model that decodes the content alone and places the result."""

    @abstractmethod
    def canonical(self, content: Float[Tensor, "b c"]) -> Float[Tensor, "b *image"]:
        """The decoded content in the pose that the model takes as zero."""

    @abstractmethod
    def placement(self, transformation: Float[Tensor, "b z"]) -> Placement:
        """The placement that a transformation code stands for: ``particle(x) = canonical(M x + t)``."""
