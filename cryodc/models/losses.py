"""The losses, one function per equation; those of DualContrast are in Uddin & Xu, arXiv 2405.16796, §3.

``c`` is the content code, ``z`` the transformation code; similarities are taken on posterior means, and every
loss is a mean over the batch, so its weight does not change with batch size or code length.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cryodc.fourier import apply_weight

Similarity = Literal["absolute", "signed"]


def reconstruction(
    observed: Float[Tensor, "b *image"],
    decoded: Float[Tensor, "b *image"],
    weights: Float[Tensor, "b d h hw"] | None,
    mask: Float[Tensor, "*space"],
) -> Float[Tensor, ""]:
    """``‖W ∘ F(x̂) − F(x)‖²`` per voxel, in the units of ``x``: only what was measured is compared.

    Evaluated in real space, where by Parseval it is the same sum, inside the mask that views are seen through.
    Without weights, in 2D, all was measured.

    Parameters
    ----------
    observed, decoded
        ``(b, 1, d, h, w)`` particles, and what was decoded of their codes.
    weights
        Of each particle; None for images.
    mask
        Within which they are compared.
    """
    measured = decoded if weights is None else apply_weight(decoded, weights)
    residual = mask * (measured - observed)
    n_channels = observed.numel() // (len(observed) * mask.numel())
    return (residual**2).sum() / (len(observed) * n_channels * (mask**2).sum())


def kl_divergence(mean: Float[Tensor, "b dims"], log_variance: Float[Tensor, "b dims"]) -> Float[Tensor, ""]:
    """``KL(N(μ, σ²) ‖ N(0, I)) = ½ Σ (μ² + σ² − 1 − log σ²)``, mean over the batch."""
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=1).mean()


def kl_between(
    mean: Float[Tensor, "b dims"],
    log_variance: Float[Tensor, "b dims"],
    mean_other: Float[Tensor, "b dims"],
    log_variance_other: Float[Tensor, "b dims"],
) -> Float[Tensor, ""]:
    """``KL(N(μ₁, σ₁²) ‖ N(μ₂, σ₂²))``, mean over the batch: Harmony's term between the contents of two views.

    Parameters
    ----------
    mean, log_variance
        ``(b, c)`` of the first Gaussian.
    mean_other, log_variance_other
        Of the second.
    """
    ratio = (log_variance - log_variance_other).exp()
    distance = (mean - mean_other) ** 2 / log_variance_other.exp()
    return 0.5 * (ratio + distance - 1 - log_variance + log_variance_other).sum(dim=1).mean()


def kl_rotation(log_variance: Float[Tensor, "b r"]) -> Float[Tensor, ""]:
    """``−log s + log σ + s²/(2σ²) − ½`` summed over angles, mean over the batch (Bepler et al. 2019, eq. 3).

    The divergence of ``N(θ, s²)`` from ``N(θ, σ²)``, σ = π: the mean of a rotation is not penalised.
    """
    variance = log_variance.exp()
    return (-0.5 * log_variance + math.log(math.pi) + variance / (2 * math.pi**2) - 0.5).sum(dim=1).mean()


def similarity(
    first: Float[Tensor, "b dims"], second: Float[Tensor, "b dims"], kind: Similarity = "absolute"
) -> Float[Tensor, " b"]:
    """``s(u, v)``: |cos(u, v)| as published, or cos(u, v) clipped below at 0."""
    cosine = F.cosine_similarity(first, second, dim=1)
    return cosine.abs() if kind == "absolute" else cosine.clamp_min(0)


def centred(
    first: Float[Tensor, "b dims"], second: Float[Tensor, "b dims"]
) -> tuple[Float[Tensor, "b dims"], Float[Tensor, "b dims"]]:
    """Both less the mean of all: what all codes have in common makes none of them similar."""
    mean = torch.cat([first, second]).mean(dim=0)
    return first - mean, second - mean


def derangement(n_items: int, generator: torch.Generator | None = None) -> Int[Tensor, " n"]:
    """A random permutation without fixed points: each particle gets another one as its negative.

    A random cyclic order, so one random permutation suffices.

    Raises
    ------
    ValueError
        If there are fewer than two items.
    """
    if n_items < 2:
        raise ValueError(f"no derangement of {n_items} items")
    device = torch.device("cpu") if generator is None else generator.device
    order = torch.randperm(n_items, generator=generator, device=device)
    partner = torch.empty_like(order)
    partner[order] = order.roll(-1)
    return partner


def content_contrast(
    content: Float[Tensor, "b c"],
    content_view: Float[Tensor, "b c"],
    partner: Int[Tensor, " b"],
    kind: Similarity = "absolute",
) -> Float[Tensor, ""]:
    """``L_con(c) = mean s(c_i, c_partner(i)) + mean d(c_i, c(R x_i))``, ``d = 1 − s``.

    Parameters
    ----------
    content, content_view
        ``(b, c)`` codes of the particles and of another view of each.
    partner
        ``(b,)`` the other particle that is each particle's negative.
    kind
        Of similarity.
    """
    negative = similarity(content, content[partner], kind)
    positive = 1 - similarity(content, content_view, kind)
    return negative.mean() + positive.mean()


def content_infonce(
    content: Float[Tensor, "b c"], content_view: Float[Tensor, "b c"], temperature: float
) -> Float[Tensor, ""]:
    """InfoNCE on content codes: a particle's other view against every other view of the batch.

    NT-Xent (Chen et al., ICML 2020), cosine similarity over a temperature, both directions.
    """
    codes = F.normalize(torch.cat([content, content_view]), dim=1)
    logits = codes @ codes.T / temperature
    logits = logits - torch.eye(len(codes), device=codes.device) * 1e9
    target = torch.arange(len(codes), device=codes.device).roll(len(content))
    return F.cross_entropy(logits, target)


def content_found(
    content: Float[Tensor, "b c"], content_view: Float[Tensor, "b c"], groups: Int[Tensor, " b"], temperature: float
) -> Float[Tensor, ""]:
    """``− mean_i mean_{p: g_p = g_i} log [ exp(cos(c_i, c_p)/τ) / Σ_{a ≠ i} exp(cos(c_i, c_a)/τ) ]``.

    Khosla et al., NeurIPS 2020, eq. 2, over both views of all particles whose group is decided: those of one group
    are positives, those of others negatives. 0 if no particle is decided.

    Parameters
    ----------
    content, content_view
        ``(b, c)`` codes of two views of each particle.
    groups
        ``(b,)``; -1 where it is undecided.
    temperature
        τ.
    """
    known = groups >= 0
    codes = F.normalize(torch.cat([content[known], content_view[known]]), dim=1)
    if not len(codes):
        return content.sum() * 0.0
    itself = torch.eye(len(codes), device=codes.device, dtype=torch.bool)
    logs = (codes @ codes.T / temperature).masked_fill(itself, -1e9).log_softmax(dim=1)
    labels = groups[known].repeat(2)
    alike = (labels[:, None] == labels) & ~itself
    return -(logs * alike).sum(dim=1).div(alike.sum(dim=1)).mean()


def turned(codes: Float[Tensor, "b z"], rotations: Float[Tensor, "b 3 3"]) -> Float[Tensor, "b z"]:
    """``ρ(R) z``: a transformation code as it is of a particle that is turned by ``R``.

    Of each eight numbers, three are a vector ``R v``, and five a symmetric matrix without trace ``R T Rᵀ``, which tells
    the axes of particles that look the same from both ends. What is left over does not turn.
    """
    n_blocks = codes.shape[1] // 8
    vectors, entries, rest = codes.split([3 * n_blocks, 5 * n_blocks, codes.shape[1] - 8 * n_blocks], dim=1)
    basis = _traceless(codes)
    matrices = torch.einsum("bnk,kij->bnij", entries.unflatten(1, (n_blocks, 5)), basis)
    vectors = torch.einsum("bij,bnj->bni", rotations, vectors.unflatten(1, (n_blocks, 3)))
    matrices = torch.einsum("bik,bnkl,bjl->bnij", rotations, matrices, rotations)
    return torch.cat([vectors.flatten(1), torch.einsum("bnij,kij->bnk", matrices, basis).flatten(1), rest], dim=1)


def _traceless(like: Tensor) -> Float[Tensor, "5 3 3"]:
    """Five symmetric matrices without trace, orthonormal."""
    basis = like.new_zeros(5, 3, 3)
    for k, (i, j) in enumerate(((0, 1), (0, 2), (1, 2))):
        basis[k, i, j] = basis[k, j, i] = 0.5**0.5
    basis[3] = torch.diag(like.new_tensor([1.0, -1.0, 0.0])) / 2**0.5
    basis[4] = torch.diag(like.new_tensor([1.0, 1.0, -2.0])) / 6**0.5
    return basis


def pose_found(
    upright: Float[Tensor, "b z"],
    upright_view: Float[Tensor, "b z"],
    groups: Int[Tensor, " b"],
    partner: Int[Tensor, " b"],
) -> Float[Tensor, ""]:
    """``mean d(z̃_i, z̃'_i) + mean d(z̃_i, z̃'_p(i))``, ``z̃ = ρ(Pᵀ) z``, ``d = 1 − cos``.

    ``z̃`` is a code turned back by the pose ``P`` that its view has. Two views of one particle have the same one, for
    their poses differ by a known rotation; so have particles ``i`` and ``p(i)`` of different groups, both decided,
    since all groups lie in one frame. The second term is 0 if there are none.

    Parameters
    ----------
    upright, upright_view
        ``(b, z)``: ``z̃`` of two views of each particle.
    groups
        ``(b,)``; -1 where it is undecided.
    partner
        ``(b,)``: ``p``.
    """
    own = 1 - F.cosine_similarity(upright, upright_view, dim=1).mean()
    others = (groups >= 0) & (groups[partner] >= 0) & (groups != groups[partner])
    between = 1 - F.cosine_similarity(upright, upright_view[partner], dim=1)
    return own + (between * others).sum() / others.sum().clamp_min(1)


def transformation_negative(
    transformation: Float[Tensor, "b z"],
    transformation_view: Float[Tensor, "b z"],
    kind: Similarity = "absolute",
) -> Float[Tensor, ""]:
    """``mean s(z_i, z(R x_i))``: a particle and its rotated copy must differ in ``z``."""
    return similarity(transformation, transformation_view, kind).mean()


def transformation_positive(
    transformation_a: Float[Tensor, "b z"],
    transformation_b: Float[Tensor, "b z"],
    kind: Similarity = "absolute",
) -> Float[Tensor, ""]:
    """``mean d( z(p(z*, c_a)), z(p(z*, c_b)) )``: one ``z*`` decoded with two contents must read the same."""
    return 1 - similarity(transformation_a, transformation_b, kind).mean()


def dependence(transformation: Float[Tensor, "b z"], content: Float[Tensor, "b c"]) -> Float[Tensor, ""]:
    """How much ``z`` tells of ``c``: the Hilbert–Schmidt independence criterion, normalised; about 0 if nothing.

    The unbiased estimate (Song et al., JMLR 2012, eq. 5) between a Gaussian kernel on ``z``, each component in units of
    its spread over the batch and the width the square root of its length, and the cosine kernel on ``c``, which is
    taken as given; over the geometric mean of each with itself (Kornblith et al., ICML 2019). Of fewer than four
    particles, for which there is no such estimate, 0.
    """
    if len(content) < 4:
        return transformation.sum() * 0.0
    centred = transformation - transformation.mean(dim=0)
    scaled = centred / centred.std(dim=0).clamp_min(1e-6)
    squared = (scaled[:, None] - scaled[None]).square().sum(dim=2)
    first = torch.exp(-squared / (2 * scaled.shape[1]))
    directions = F.normalize(content.detach(), dim=1)
    second = directions @ directions.T
    scale = (_hsic(first, first).detach() * _hsic(second, second)).clamp_min(1e-12).sqrt()
    return _hsic(first, second) / scale


def _hsic(first: Float[Tensor, "b b"], second: Float[Tensor, "b b"]) -> Float[Tensor, ""]:
    """Song et al., JMLR 2012, eq. 5, of two kernel matrices."""
    n = len(first)
    off_diagonal = 1 - torch.eye(n, device=first.device, dtype=first.dtype)
    first, second = first * off_diagonal, second * off_diagonal
    product = (first * second).sum()
    sums = first.sum() * second.sum() / ((n - 1) * (n - 2))
    rows = 2 * (first.sum(dim=0) * second.sum(dim=0)).sum() / (n - 2)
    return (product + sums - rows) / (n * (n - 3))
