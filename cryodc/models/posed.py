"""Models whose transformation code is an explicit pose: an image in a pose of its own, and where a particle has it.

Harmony and SpatialVAE give a rotation (an angle in 2D, a rotation vector in 3D, radians) and a shift in voxels; VITAE
gives the logarithm of an affine transform.
"""

from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor

from cryodc.models.base import Model, Placement


class PosedModel(Model):
    """A model that decodes the content alone and places the result."""

    @abstractmethod
    def canonical(self, content: Float[Tensor, "b c"]) -> Float[Tensor, "b *image"]:
        """What a content code looks like in the pose that the model takes for none."""

    @abstractmethod
    def placement(self, transformation: Float[Tensor, "b z"]) -> Placement:
        """Where a transformation code puts it: ``particle(x) = canonical(M x + t)``."""
