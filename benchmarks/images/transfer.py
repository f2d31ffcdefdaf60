"""Whether decoded images show the content of the row and the transformation of the column: a classifier looks at them.

It is taught with labels, on the images a model was trained on, and asked what each cell of a transfer grid shows.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from cryodc.codes import Codes
from cryodc.dataset import ViewConfig, mask_of_views, random_view, through_mask
from cryodc.models import Model

Labelled = tuple[Float[NDArray[np.float32], "n *image"], Int[NDArray[np.int64], " n"]]
"""Images, ``(n, h, w)`` or in colour ``(n, 3, h, w)``, and the label of each."""

_VIEWS = ViewConfig(rotation="vector", max_shift_voxels=1.0, stretch=0.1, elastic_voxels=0.5, low_pass_shells=None)
_WIDTH = 32
_EPOCHS = 12
_BATCH = 64
_N_ROWS = 100
_N_COLUMNS = 20


def transfer_scores(model: Model, codes: Codes, training: Labelled, test: Labelled, seed: int) -> dict[str, float]:
    """Shares of a grid of 100 × 20 cells, contents and transformations of test images drawn by the seed.

    Returns
    -------
    ``row``: of cells that the classifier takes for the label of the row, whose content code is decoded. ``column``: for
    that of the column, whose transformation code is; by chance this is how often both agree. ``own``: of test
    images decoded from their own two codes. ``recorded``: of test images as they are, what the classifier is worth.
    """
    images, labels = test
    generator = np.random.default_rng(seed)
    rows, columns = (
        np.sort(generator.choice(len(codes), min(n, len(codes)), replace=False)) for n in (_N_ROWS, _N_COLUMNS)
    )
    classifier = taught_classifier(training, seed, next(model.parameters()).device)
    of_rows = (decode(model, codes, np.full(len(columns), row), columns) for row in rows)
    cells = np.stack([classify(classifier, images_of_row) for images_of_row in of_rows])
    every = np.arange(len(codes))
    own = classify(classifier, decode(model, codes, every, every))
    recorded = classify(classifier, torch.from_numpy(images))
    shares = {
        "row": cells == labels[rows, None],
        "column": cells == labels[None, columns],
        "own": own == labels,
        "recorded": recorded == labels,
    }
    return {name: round(float(right.mean()), 4) for name, right in shares.items()}


@torch.no_grad()
def decode(
    model: Model, codes: Codes, contents: Int[NDArray[np.int64], " n"], transformations: Int[NDArray[np.int64], " n"]
) -> Float[Tensor, "n *image"]:
    """Images of the content codes of some particles and the transformation codes of others."""
    device = next(model.parameters()).device
    content = torch.from_numpy(codes.content[contents]).to(device)
    return model.decode(content, torch.from_numpy(codes.transformation[transformations]).to(device)).cpu()


def taught_classifier(training: Labelled, seed: int, device: torch.device) -> nn.Module:
    """A small convolutional network that has learned the labels from views of these images."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        classifier = _network(*training).to(device)
    generator = torch.Generator(device).manual_seed(seed)
    particles, labels = (torch.from_numpy(part).to(device) for part in training)
    mask = mask_of_views(_VIEWS, particles.shape[-1], device, dims=2)
    optimiser = torch.optim.AdamW(classifier.parameters(), 1e-3)
    for _ in range(_EPOCHS):
        for rows in torch.randperm(len(labels), generator=generator, device=device).split(_BATCH):
            view = random_view(particles[rows], None, mask, _VIEWS, generator)
            loss = F.cross_entropy(classifier(_with_channels(view.volumes)), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return classifier.eval()


@torch.no_grad()
def classify(classifier: nn.Module, images: Float[Tensor, "n *image"]) -> Int[NDArray[np.int64], " n"]:
    """The label that each image looks most like."""
    device = next(classifier.parameters()).device
    mask = mask_of_views(_VIEWS, images.shape[-1], device, dims=2)
    found: Tensor = classifier(_with_channels(through_mask(images.to(device), mask))).argmax(dim=1)
    return found.cpu().numpy()


def _network(images: Float[NDArray[np.float32], "n *image"], labels: Int[NDArray[np.int64], " n"]) -> nn.Module:
    n_channels = 1 if images.ndim == 3 else images.shape[1]
    convolutions: list[nn.Module] = []
    for before, after in ((n_channels, _WIDTH), (_WIDTH, 2 * _WIDTH), (2 * _WIDTH, 4 * _WIDTH)):
        convolutions += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.SiLU()]
    edge = -(-images.shape[-1] // 8)
    n_labels = int(labels.max()) + 1
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Dropout(0.3), nn.Linear(4 * _WIDTH * edge**2, n_labels))


def _with_channels(images: Float[Tensor, "n *image"]) -> Float[Tensor, "n ch h w"]:
    return images if images.ndim == 4 else images[:, None]
