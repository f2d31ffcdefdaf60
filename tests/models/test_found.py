"""Pairs that templates found: groups, poses, averages."""

import math

import pytest
import torch

from cryodc.dataset import ViewConfig, mask_of_views, random_view, recorded_view
from cryodc.fourier import apply_weight, wedge_from_tilt_range
from cryodc.geometry import random_rotations, resample
from cryodc.models import Found, losses, preset_config
from cryodc.models.dualcontrast import DualContrast
from cryodc.models.found import found_terms

BOX = 16


def codes(seed: int, n: int = 7, dims: int = 5) -> torch.Tensor:
    return torch.randn(n, dims, generator=torch.Generator().manual_seed(seed))


def test_found_content_is_its_loop_over_decided_particles() -> None:
    c, view, groups, temperature = codes(0), codes(1), torch.tensor([0, 1, 0, -1, 2, 1, -1]), 0.3
    both = [(int(g), x) for half in (c, view) for g, x in zip(groups, half, strict=True) if g >= 0]
    total = 0.0
    for i, (group, code) in enumerate(both):
        cosines = {j: float(code @ x / (code.norm() * x.norm())) for j, (_, x) in enumerate(both) if j != i}
        whole = math.log(sum(math.exp(value / temperature) for value in cosines.values()))
        alike = [value / temperature - whole for j, value in cosines.items() if both[j][0] == group]
        total -= sum(alike) / len(alike)
    assert float(losses.content_found(c, view, groups, temperature)) == pytest.approx(total / len(both), abs=1e-5)


def test_undecided_particles_have_no_part_in_found_content() -> None:
    c = codes(2).requires_grad_()
    losses.content_found(c, codes(3), torch.tensor([0, 1, 0, -1, 0, 1, -1]), 0.2).backward()
    assert c.grad is not None
    moved = c.grad.abs().sum(dim=1) > 0
    assert moved.tolist() == [True, True, True, False, True, True, False]
    assert float(losses.content_found(codes(2), codes(3), torch.full((7,), -1), 0.2)) == 0


def test_codes_turn_as_vectors_and_axes_do() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = random_rotations(4, generator), random_rotations(4, generator)
    z = codes(4, 4, 18)
    turned = losses.turned(z, a)
    torch.testing.assert_close(turned[:, :3], (a @ z[:, :3, None])[..., 0])
    torch.testing.assert_close(turned[:, 16:], z[:, 16:])
    # A representation, and an orthogonal one: lengths stay.
    torch.testing.assert_close(losses.turned(losses.turned(z, a), b), losses.turned(z, b @ a), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(turned.norm(dim=1), z.norm(dim=1))
    # Half a turn about an axis across it brings a vector to its negative, and an axis to itself.
    half = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))[None].expand(4, 3, 3)
    axis = torch.zeros(4, 8)
    axis[:, 0], axis[:, 6:] = 1, torch.tensor([1.0, 2.0])
    torch.testing.assert_close(losses.turned(axis, half)[:, :3], -axis[:, :3])
    torch.testing.assert_close(losses.turned(axis, half)[:, 3:], axis[:, 3:])


def test_codes_that_turn_with_particles_are_found_poses() -> None:
    generator, groups = torch.Generator().manual_seed(1), torch.tensor([0, 1, 0, 1])
    partner = torch.tensor([1, 2, 3, 0])
    upright = codes(5, 1, 16).expand(4, 16)
    poses = random_rotations(4, generator)
    z = losses.turned(upright, poses)
    back = losses.turned(z, poses.transpose(1, 2))
    assert float(losses.pose_found(back, upright, groups, partner)) == pytest.approx(0, abs=1e-5)
    assert float(losses.pose_found(z, upright, groups, partner)) > 0.5
    # Particles of one group, and undecided ones, are no partners.
    for alone in (torch.zeros(4, dtype=torch.long), torch.full((4,), -1)):
        other = torch.cat([upright[:1], -upright[1:]])
        assert float(losses.pose_found(other, other, alone, partner)) == pytest.approx(0, abs=1e-5)


def test_decoder_is_taught_the_average_as_the_view_lies() -> None:
    """A particle without noise is its group's average in its pose, and so is each view of it."""
    generator = torch.Generator().manual_seed(2)
    config = preset_config(
        "default", BOX, {"model": {"width": 8, "max_channels": 16}, "loss": {"found_averages": True}}
    )
    mask = mask_of_views(ViewConfig(), BOX)
    grid = torch.stack(torch.meshgrid(*[torch.arange(BOX) - BOX // 2] * 3, indexing="ij"), dim=-1).float()
    average = sum(torch.exp(-(grid - torch.tensor(at)).square().sum(-1) / 4) for at in ((2.0, 0, 3), (-3, 2, 0)))
    poses = random_rotations(3, generator)
    there = resample(average.expand(3, BOX, BOX, BOX), poses.transpose(1, 2))
    weights = wedge_from_tilt_range(BOX, -60, 60).expand(3, -1, -1, -1)
    found = Found(torch.tensor([0, 1, -1]), poses, there)
    model = DualContrast(config.model)
    seen = apply_weight(there, weights)
    views = recorded_view(seen, weights, mask, config.views), random_view(seen, weights, mask, config.views, generator)
    for view in views:
        # A particle that has no noise in it: what its view shows is what has to be decoded, up to its grey values.
        scale = view.target.std() / (mask * seen).std()
        posterior, decoded = model.encode(view.volumes), (view.target, view.target)
        losses_of = [
            float(
                found_terms(
                    found._replace(averages=averages),
                    (view, view),
                    (posterior, posterior),
                    decoded,
                    mask,
                    config,
                    generator,
                )["reconstruction"].detach()
            )
            for averages in (scale * there, scale * there.flip(1))
        ]
        assert losses_of[0] < 0.25 * losses_of[1]
