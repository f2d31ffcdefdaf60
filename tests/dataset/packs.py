"""What tests of packs share."""

import torch

from cryodc.dataset import SubtomogramDataset

BOX = 16


def everything(dataset: SubtomogramDataset) -> tuple[torch.Tensor, torch.Tensor]:
    return dataset.batch(torch.arange(len(dataset)))
