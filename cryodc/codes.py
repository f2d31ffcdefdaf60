"""Codes: what the encoder says of each particle, by name."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray


@dataclass(frozen=True)
class Codes:
    """Content and transformation codes, one row per particle, in the order of ``names``.

    Parameters
    ----------
    names
        Particle names, unique.
    content, transformation
        ``(n, dims)`` posterior means; of length 0 where no network has been trained.
    content_log_variance, transformation_log_variance
        ``(n, dims)`` log σ² of the diagonal Gaussian posteriors.
    directional
        Whether codes are compared by their direction alone, as a contrast by cosine trains them.
    template_content
        ``(n, k)`` content codes made of templates (:mod:`cryodc.templates`), in units of the spread within a protein;
        None where there are no templates.
    template_pose
        ``(n, p)`` transformation codes made of templates: how each particle lies, and along which axes it differs from
        those like it (:func:`cryodc.templates.groups.place_particles`); None likewise.

    Raises
    ------
    ValueError
        If lengths differ, a name comes twice, or a value is not finite.
    """

    names: tuple[str, ...]
    content: Float[NDArray[np.float32], "n c"]
    transformation: Float[NDArray[np.float32], "n z"]
    content_log_variance: Float[NDArray[np.float32], "n c"]
    transformation_log_variance: Float[NDArray[np.float32], "n z"]
    directional: bool = True
    template_content: Float[NDArray[np.float32], "n k"] | None = None
    template_pose: Float[NDArray[np.float32], "n p"] | None = None

    def __post_init__(self) -> None:
        for field in ("content", "transformation", "content_log_variance", "transformation_log_variance"):
            rows = len(getattr(self, field))
            if rows != len(self.names):
                raise ValueError(f"{len(self.names)} names but {rows} rows of {field}")
            if not np.isfinite(getattr(self, field)).all():
                raise ValueError(f"{field} holds values that are not finite")
        for field in ("template_content", "template_pose"):
            values = getattr(self, field)
            if values is not None and (len(values) != len(self.names) or not np.isfinite(values).all()):
                raise ValueError(f"{field}: expected {len(self.names)} rows of finite values")
        if len(set(self.names)) != len(self.names):
            raise ValueError("two particles have the same name")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of_no_network(cls, names: tuple[str, ...]) -> "Codes":
        """Codes of these particles in which a network has no part: both have length 0."""
        none = np.zeros((len(names), 0), dtype=np.float32)
        return cls(names, none, none, none, none)

    @property
    def of_network(self) -> bool:
        """Whether a network says anything of the particles."""
        return self.content.shape[1] > 0

    def select(self, names: Sequence[str]) -> "Codes":
        """Rows for these particles, in this order.

        Raises
        ------
        KeyError
            If a name has no code.
        """
        row = {name: i for i, name in enumerate(self.names)}
        keep = np.array([row[name] for name in names], dtype=np.int64)
        return Codes(
            tuple(names),
            self.content[keep],
            self.transformation[keep],
            self.content_log_variance[keep],
            self.transformation_log_variance[keep],
            self.directional,
            None if self.template_content is None else self.template_content[keep],
            None if self.template_pose is None else self.template_pose[keep],
        )

    @property
    def content_points(self) -> Float[NDArray[np.float32], "n c"]:
        """Content codes as they are compared: those made of templates, as they are, where there are any.

        Otherwise the network's, at length 1 where only their direction counts; a code of zeros stays.
        """
        if self.template_content is not None:
            return self.template_content
        return _unit(self.content) if self.directional else self.content

    @property
    def transformation_points(self) -> Float[NDArray[np.float32], "n z"]:
        """Transformation codes likewise, to be looked at."""
        if self.template_pose is not None:
            return self.template_pose
        return _unit(self.transformation) if self.directional else self.transformation

    @property
    def transformation_told(self) -> Float[NDArray[np.float32], "n z"]:
        """Transformation codes as is measured what they tell: those made of templates, or the network's as they are."""
        return self.transformation if self.template_pose is None else self.template_pose


def _unit(codes: Float[NDArray[np.float32], "n dims"]) -> Float[NDArray[np.float32], "n dims"]:
    return codes / np.maximum(np.linalg.norm(codes, axis=1, keepdims=True), np.float32(1e-12))
