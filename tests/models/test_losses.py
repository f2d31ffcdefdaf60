import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Independent, Normal, kl_divergence

from cryodc.fourier import wedge_from_tilt_range
from cryodc.models import losses


def codes(seed: int, n: int = 7, dims: int = 5) -> torch.Tensor:
    return torch.randn(n, dims, generator=torch.Generator().manual_seed(seed))


def cosine(u: torch.Tensor, v: torch.Tensor) -> float:
    return float(
        sum(a * b for a, b in zip(u, v, strict=True)) / math.sqrt(sum(a * a for a in u) * sum(b * b for b in v))
    )


def test_kl_is_torchs() -> None:
    mean, log_variance = codes(0), codes(1)
    posterior = Independent(Normal(mean, (0.5 * log_variance).exp()), 1)
    prior = Independent(Normal(torch.zeros(7, 5), torch.ones(7, 5)), 1)
    torch.testing.assert_close(losses.kl_divergence(mean, log_variance), kl_divergence(posterior, prior).mean())


def test_content_contrast_is_its_loop() -> None:
    c, view = codes(2), codes(3)
    partner = losses.derangement(7, torch.Generator().manual_seed(0))
    negative = sum(abs(cosine(c[i], c[partner[i]])) for i in range(7)) / 7
    positive = sum(1 - abs(cosine(c[i], view[i])) for i in range(7)) / 7
    assert float(losses.content_contrast(c, view, partner)) == pytest.approx(negative + positive, abs=1e-5)


def test_infonce_is_its_loop() -> None:
    c, view, temperature = codes(4), codes(5), 0.3
    both = [*c, *view]
    total = 0.0
    for i in range(14):
        logits = {j: cosine(both[i], both[j]) / temperature for j in range(14) if j != i}
        total += -logits[(i + 7) % 14] + math.log(sum(math.exp(value) for value in logits.values()))
    assert float(losses.content_infonce(c, view, temperature)) == pytest.approx(total / 14, abs=1e-5)


def test_transformation_terms_are_their_loops() -> None:
    z, view = codes(6), codes(7)
    mean = sum(abs(cosine(z[i], view[i])) for i in range(7)) / 7
    assert float(losses.transformation_negative(z, view)) == pytest.approx(mean, abs=1e-5)
    assert float(losses.transformation_positive(z, view)) == pytest.approx(1 - mean, abs=1e-5)
    signed = sum(max(cosine(z[i], view[i]), 0) for i in range(7)) / 7
    assert float(losses.transformation_negative(z, view, "signed")) == pytest.approx(signed, abs=1e-5)


@pytest.mark.parametrize("batch", [4, 40])
def test_losses_do_not_depend_on_batch_size_or_code_length(batch: int) -> None:
    once, view = codes(8, 4, 3), codes(9, 4, 3)
    repeats = batch // 4
    repeated, repeated_view = once.repeat(repeats, 6), view.repeat(repeats, 6)
    assert float(losses.transformation_negative(repeated, repeated_view)) == pytest.approx(
        float(losses.transformation_negative(once, view)), abs=1e-6
    )


@given(st.integers(2, 60), st.integers(0, 1000))
def test_no_particle_is_its_own_negative(n: int, seed: int) -> None:
    partner = losses.derangement(n, torch.Generator().manual_seed(seed))
    assert (partner != torch.arange(n)).all()
    assert sorted(partner.tolist()) == list(range(n))


def test_one_particle_has_no_negative() -> None:
    with pytest.raises(ValueError, match="no derangement"):
        losses.derangement(1)


def test_reconstruction_is_the_fourier_sum_of_parseval() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = wedge_from_tilt_range(16, -60, 60)
    decoded = torch.randn(3, 16, 16, 16, generator=generator)
    observed = torch.randn(3, 16, 16, 16, generator=generator)
    ours = losses.reconstruction(observed, decoded, weight.expand(3, -1, -1, -1), torch.ones(16, 16, 16))
    full = np.zeros((16, 16, 16))
    full[..., :9] = weight.numpy()
    for z in range(16):
        for y in range(16):
            for x in range(9, 16):
                full[z, y, x] = weight[-z % 16, -y % 16, 16 - x]
    spectrum = np.fft.fftn(decoded.numpy(), axes=(1, 2, 3)) * full - np.fft.fftn(observed.numpy(), axes=(1, 2, 3))
    parseval = (np.abs(spectrum) ** 2).sum() / 16**3 / (3 * 16**3)
    assert float(ours) == pytest.approx(parseval, rel=1e-4)


def test_what_the_wedge_hides_costs_nothing() -> None:
    generator = torch.Generator().manual_seed(1)
    weight = wedge_from_tilt_range(16, -60, 60).expand(2, -1, -1, -1)
    observed = torch.randn(2, 16, 16, 16, generator=generator)
    decoded = torch.randn(2, 16, 16, 16, generator=generator)
    hidden = torch.fft.irfftn(torch.fft.rfftn(torch.randn(2, 16, 16, 16), dim=(1, 2, 3)) * (1 - weight), s=(16,) * 3)
    mask = torch.ones(16, 16, 16)
    torch.testing.assert_close(
        losses.reconstruction(observed, decoded + 5 * hidden, weight, mask),
        losses.reconstruction(observed, decoded, weight, mask),
    )


def test_dependence_is_the_mean_over_all_four_particles() -> None:
    """The U-statistic ``K12 L12 + K12 L34 - 2 K12 L13`` over ordered quadruples (Song et al. 2012), written out."""
    z, c = codes(20, 6, 3), codes(21, 6, 4)
    scaled = (z - z.mean(dim=0)) / z.std(dim=0)
    first = [[math.exp(-float(sum((a - b) ** 2)) / 6) for b in scaled] for a in scaled]
    second = [[cosine(a, b) for b in c] for a in c]

    def hsic(k: list[list[float]], m: list[list[float]]) -> float:
        terms = [
            k[i][j] * m[i][j] + k[i][j] * m[q][r] - 2 * k[i][j] * m[i][q]
            for i, j, q, r in itertools.permutations(range(6), 4)
        ]
        return sum(terms) / len(terms)

    expected = hsic(first, second) / math.sqrt(hsic(first, first) * hsic(second, second))
    assert float(losses.dependence(z, c)) == pytest.approx(expected, abs=1e-5)


def test_dependence_is_nothing_between_independent_codes_and_grows_with_what_they_share() -> None:
    classes = torch.arange(60) % 4
    content = torch.eye(4)[classes] + 0.1 * codes(22, 60, 4)
    free = torch.stack([losses.dependence(codes(seed, 60, 8), content) for seed in range(30, 60)])
    assert abs(float(free.mean())) < 3 * float(free.std()) / math.sqrt(len(free))
    told = [float(losses.dependence(codes(23, 60, 8) + share * content.repeat(1, 2), content)) for share in (1, 3, 9)]
    assert float(free.max()) < told[0] < told[1] < told[2]


def test_what_all_codes_have_in_common_makes_none_similar() -> None:
    z, view = codes(30), codes(31)
    mean = torch.stack([*z, *view]).mean(dim=0)
    common = torch.full((5,), 50.0)
    moved = losses.centred(z + common, view + common)
    for found, expected in zip(moved, (z - mean, view - mean), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert float(losses.transformation_negative(z + common, view + common)) > 0.95
    assert float(losses.transformation_negative(*moved)) < 0.7


def test_dependence_moves_z_and_not_c() -> None:
    z, c = codes(24, 12, 3).requires_grad_(), codes(25, 12, 4).requires_grad_()
    losses.dependence(z, c).backward()
    assert z.grad is not None
    assert float(z.grad.abs().max()) > 0
    assert c.grad is None


def test_three_particles_have_no_estimate_of_dependence() -> None:
    assert float(losses.dependence(codes(26, 3), codes(27, 3))) == 0
