"""What templates found of particles, as the pairs that a network learns from."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cryodc.fourier import fourier_pad
from cryodc.models import Found
from cryodc.runs import RunFolder, load_codes
from cryodc.templates import BOX, ROTATION_SCALE, TemplateDecoder, load_template_decoder

_DECIDED = 0.9


@dataclass(frozen=True)
class FoundPairs:
    """Groups, poses and averages of all particles of a run.

    Parameters
    ----------
    content, transformation
        Codes made of templates.
    groups
        Of each particle; -1 where it is undecided.
    decoder
        Gives averages as particles lie.
    """

    content: Float[Tensor, "n k"]
    transformation: Float[Tensor, "n p"]
    groups: Int[Tensor, " n"]
    decoder: TemplateDecoder

    def of(self, rows: Int[Tensor, " b"], box_size: int) -> Found:
        """What was found of these particles, averages in a box of at least :data:`cryodc.templates.BOX`.

        Particles are standardised in each box: in a larger one, which holds more of their noise, a protein is fainter.
        """
        at = rows.to(self.groups.device)
        content, transformation = self.content[at], self.transformation[at]
        averages = fourier_pad(self.decoder.decode(content, transformation), box_size) * (BOX / box_size) ** 1.5
        rotations = (transformation[:, :9] / ROTATION_SCALE).reshape(-1, 3, 3)
        return Found(self.groups[at], rotations, averages)


def found_pairs(run: RunFolder, device: torch.device) -> FoundPairs | None:
    """The pairs of a run; None where it has no templates, or all particles are of one group.

    A particle is decided if its group has at least 0.9 of the posterior probability, under Gaussians about the centre
    of each group, with the spread within a protein, which is 1.
    """
    decoder = load_template_decoder(run, device)
    codes = None if decoder is None else load_codes(run)
    if decoder is None or codes is None or codes.template_content is None or codes.template_pose is None:
        return None
    content = torch.from_numpy(codes.template_content).to(device)
    transformation = torch.from_numpy(codes.template_pose).to(device)
    sureness, groups = (-0.5 * torch.cdist(content, decoder.centres).square()).softmax(dim=1).max(dim=1)
    groups = torch.where(sureness >= _DECIDED, groups, -1)
    if len(groups[groups >= 0].unique()) < 2:
        return None
    return FoundPairs(content, transformation, groups, decoder)
