import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.spatial.transform import Rotation
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from torch.distributions import Independent, Normal, kl_divergence

from cryodc.dataset import ImageDataset, image_dataset, recorded_view, through_mask
from cryodc.fourier import view_mask, wedge_from_tilt_range
from cryodc.geometry import resample, transforms
from cryodc.models import MODELS, OBJECTIVES, Batch, ModelConfig, TrainConfig, build_model, losses, preset_config
from cryodc.models.baselines import VITAE, SpatialVAE
from cryodc.models.baselines.spatial_vae import draw_voxels
from cryodc.runs import RunFolder
from cryodc.training import encode_particles, load_model, start_state, train
from cryodc.training.loop import log_columns

BOX = 16
BASELINES = ["harmony", "spatial-vae", "vitae", "vae"]
SMALL = {"width": 8, "max_channels": 32, "hidden": 64, "coordinate_units": 64}


def shapes(n_per_shape: int = 24, seed: int = 0, noise: float = 0.3) -> tuple[ImageDataset, np.ndarray]:
    """Bars and rings, turned and moved at random, under noise; and which is which."""
    generator = np.random.default_rng(seed)
    labels = np.arange(2 * n_per_shape) % 2
    angles = generator.uniform(-math.pi, math.pi, len(labels))
    dy, dx = generator.uniform(-1, 1, (2, len(labels), 1, 1))
    y, x = np.meshgrid(np.arange(BOX) - BOX // 2, np.arange(BOX) - BOX // 2, indexing="ij")
    y, x = y - dy, x - dx
    along = x * np.cos(angles)[:, None, None] + y * np.sin(angles)[:, None, None]
    across = -x * np.sin(angles)[:, None, None] + y * np.cos(angles)[:, None, None]
    bars = np.exp(-((along / 5) ** 4) - (across / 1.5) ** 2) * (1 + 0.1 * along)
    rings = np.exp(-(((np.hypot(x, y) - 4) / 1.2) ** 2)) * (1 + 0.3 * along / 4)
    clean = np.where(labels[:, None, None] == 0, bars, rings)
    return image_dataset(clean + noise * clean.std() * generator.normal(size=clean.shape)), labels


def config_2d(name: str, **optimisation: object) -> TrainConfig:
    settings = {"epochs": 2, "batch_size": 16, "learning_rate": 2e-3, **optimisation}
    return preset_config("default", BOX, {"model": {"name": name, "dims": 2, **SMALL}, "optimisation": settings})


def correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    first, second = (values.flatten(1) - values.flatten(1).mean(1, keepdim=True) for values in (first, second))
    return float(((first * second).sum(1) / (first.norm(dim=1) * second.norm(dim=1))).mean())


# Settings under which seconds suffice, and the share of the reconstruction loss that is left after them.
LEARNING: dict[str, tuple[float, dict[str, dict[str, object]]]] = {
    "harmony": (0.75, {"loss": {"kl_weight": 0.1}, "optimisation": {"epochs": 90, "learning_rate": 2e-3}}),
    "spatial-vae": (
        0.5,
        {
            "model": {"coordinate_units": 96},
            "loss": {"kl_weight": 0.5},
            "optimisation": {"epochs": 120, "learning_rate": 5e-3},
        },
    ),
    "vitae": (0.75, {"optimisation": {"epochs": 50, "learning_rate": 2e-3}}),
    "vae": (0.6, {"optimisation": {"epochs": 40, "learning_rate": 2e-3}}),
}


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_learns_the_images(name: str, tmp_path: Path) -> None:
    dataset, labels = shapes()
    left, settings = LEARNING[name]
    settings = {
        "model": {"name": name, "dims": 2, **SMALL, **settings.get("model", {})},
        "loss": settings.get("loss", {}),
        "optimisation": {"batch_size": 12, **settings["optimisation"]},
    }
    config = preset_config("default", BOX, settings)
    model = train(dataset, config, RunFolder(tmp_path), seed=1)
    header, *lines = (tmp_path / "log.csv").read_text().splitlines()
    assert header == ",".join(log_columns(config.model.name))
    column = header.split(",").index("reconstruction")
    reconstruction = [float(line.split(",")[column]) for line in lines]
    assert np.mean(reconstruction[-3:]) < left * reconstruction[0]
    codes = encode_particles(model, dataset, config.views)
    mask = view_mask(BOX, dims=2)
    seen = through_mask(dataset.images, mask)
    with torch.no_grad():
        decoded = model.decode(torch.from_numpy(codes.content), torch.from_numpy(codes.transformation))
    assert correlation(mask * decoded, seen) > correlation(seen.mean(0, keepdim=True).expand_as(seen), seen) + 0.05
    found = KMeans(2, n_init=5, random_state=0).fit_predict(codes.content_points)
    assert adjusted_rand_score(labels, found) > 0.8


def test_dualcontrast_tells_shapes_apart_in_the_plane(tmp_path: Path) -> None:
    dataset, labels = shapes()
    config = config_2d("dualcontrast", epochs=30)
    codes = encode_particles(train(dataset, config, RunFolder(tmp_path), seed=1), dataset, config.views, n_views=8)
    found = KMeans(2, n_init=5, random_state=0).fit_predict(codes.content_points)
    assert adjusted_rand_score(labels, found) > 0.8


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("box", [16, 18])
def test_every_model_decodes_to_what_it_encodes(name: str, dims: int, box: int) -> None:
    for channels in (1, 3) if dims == 2 else (1,):
        config = ModelConfig(name=name, dims=dims, channels=channels, box_size=box, **SMALL)
        model = build_model(config).eval()
        shape = [2, *([3] if channels == 3 else []), *[box] * dims]
        images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        posterior = model.encode(images)
        for code, length in (
            (posterior.content, config.content_dims),
            (posterior.transformation, config.transformation_dims),
        ):
            assert code.mean.shape == code.log_variance.shape == (2, length)
        decoded = model.decode(posterior.content.mean, posterior.transformation.mean)
        assert decoded.shape == images.shape
        assert (decoded[0] - decoded[1]).abs().max() > 1e-5


@pytest.mark.parametrize("name", BASELINES)
def test_the_length_of_a_pose_follows_from_the_model(name: str) -> None:
    expected = {"harmony": (3, 6), "spatial-vae": (3, 6), "vitae": (6, 12), "vae": (0, 0)}[name]
    found = tuple(ModelConfig(name=name, dims=dims, box_size=16).transformation_dims for dims in (2, 3))
    assert found == expected
    with pytest.raises(ValueError, match="transformation_dims"):
        ModelConfig(name=name, box_size=16, transformation_dims=5)
    # Written out, as config.yaml has it, the length is accepted.
    whole = ModelConfig(name=name, dims=2, box_size=16)
    assert ModelConfig.model_validate(whole.model_dump()) == whole


def test_proteins_are_not_stretched_unless_asked_for() -> None:
    assert preset_config("default", 32, {"model": {"name": "vitae"}}).model.transformation_dims == 6
    affine = preset_config("default", 32, {"model": {"name": "vitae", "transformer": "affine"}})
    assert affine.model.transformation_dims == 12
    assert preset_config("default", 32, {"model": {"name": "vitae", "dims": 2}}).model.transformer == "affine"


def test_published_settings_are_those_of_the_papers() -> None:
    harmony = preset_config("default", 32, {"model": {"name": "harmony"}})
    assert harmony.model.content_dims == 1
    assert (harmony.optimisation.epochs, harmony.optimisation.batch_size) == (200, 50)
    assert (harmony.optimisation.learning_rate, harmony.views.max_shift_voxels) == (1e-4, 4.0)
    assert ModelConfig(box_size=32).coordinate_units == 500
    for preset, dims, epochs, batch, channels in (
        ("paper-mnist", 10, 100, 100, 1),
        ("paper-linemod", 16, 200, 50, 3),
        ("paper-starmen", 16, 100, 50, 1),
    ):
        config = preset_config(preset, 64)
        assert (config.model.dims, config.model.channels) == (2, channels)
        assert config.model.content_dims == config.model.transformation_dims == dims
        assert (config.optimisation.epochs, config.optimisation.batch_size) == (epochs, batch)
        assert config.loss.content_loss == "cosine"


@pytest.mark.parametrize(("dims", "length"), [(2, 3), (2, 6), (3, 6), (3, 12)])
def test_a_transform_and_its_inverse_are_the_identity(dims: int, length: int) -> None:
    generator = 0.4 * torch.randn(5, length, generator=torch.Generator().manual_seed(length))
    matrices, offsets = transforms.exponential(generator, dims)
    back, back_offsets = transforms.exponential(-generator, dims)
    torch.testing.assert_close(back @ matrices, torch.eye(dims).expand(5, -1, -1), atol=1e-5, rtol=0)
    zero = torch.einsum("bij,bj->bi", back, offsets) + back_offsets
    torch.testing.assert_close(zero, torch.zeros(5, dims), atol=1e-5, rtol=0)
    if length == dims * (dims + 1):
        whole = np.zeros((dims + 1, dims + 1))
        whole[:dims, :dims] = generator[0, : dims**2].reshape(dims, dims)
        whole[:dims, dims] = generator[0, dims**2 :]
        np.testing.assert_allclose(matrices[0], expm(whole)[:dims, :dims], atol=1e-5)
        np.testing.assert_allclose(offsets[0], expm(whole)[:dims, dims], atol=1e-5)
    else:
        torch.testing.assert_close(matrices @ matrices.mT, torch.eye(dims).expand(5, -1, -1), atol=1e-5, rtol=0)


def test_vitae_unwarps_what_it_warps() -> None:
    model = VITAE(ModelConfig(name="vitae", dims=2, box_size=32, **SMALL))
    y, x = torch.meshgrid(torch.arange(32.0) - 16, torch.arange(32.0) - 16, indexing="ij")
    blob = (torch.exp(-((x - 2) ** 2) / 20 - (y + 1) ** 2 / 40))[None]
    code = torch.tensor([[0.1, 0.3, -0.2, 0.15, 2.0, -1.5]])
    warped = resample(blob, *model.placement(code))
    assert correlation(warped, blob) < 0.95
    back = resample(warped, *model.placement(-code))
    assert (back - blob).abs().max() < 0.05


def test_rotations_are_scipys() -> None:
    vectors = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    xyz = Rotation.from_rotvec(vectors.flip(1).numpy()).as_matrix()
    np.testing.assert_allclose(transforms.rotations_from_parameters(vectors), xyz[:, ::-1, ::-1], atol=1e-5)
    # The rotation of the plane is that of space about z.
    about_z = transforms.rotations_from_parameters(torch.tensor([[0.7, 0.0, 0.0]]))[0, 1:, 1:]
    torch.testing.assert_close(transforms.rotations_from_parameters(torch.tensor([[0.7]]))[0], about_z)


@pytest.mark.parametrize("dims", [2, 3])
def test_harmonys_pose_takes_the_particle_to_its_canonical_pose(dims: int) -> None:
    model = build_model(ModelConfig(name="harmony", dims=dims, box_size=16, content_dims=2, **SMALL)).eval()
    axis = torch.arange(16.0) - 8
    grids = torch.meshgrid(*[axis] * dims, indexing="ij")
    # A dot at x = 3: a quarter turn takes +x to +y, and then everything moves by a voxel along x.
    dot = torch.exp(-sum((grid - (3 if i == dims - 1 else 0)) ** 2 for i, grid in enumerate(grids)))[None]
    model.canonical = lambda content: dot
    turn = [math.pi / 2] if dims == 2 else [math.pi / 2, 0, 0]
    pose = torch.tensor([[*turn, *[0.0] * (dims - 1), 1.0]])
    particle = model.decode(torch.zeros(1, 2), pose)
    # aligned(u) = particle(R u + t): the dot at u = (0, 3) stands in the particle at R u + t = (3, 0) + (0, 1).
    place = [int(i) - 8 for i in np.unravel_index(int(particle[0].argmax()), particle[0].shape)]
    assert place == [*[0] * (dims - 2), 3, 1]
    aligned = resample(particle, *model.alignment(pose))
    assert (aligned - dot).abs().max() < 0.02


def test_spatialvae_moves_its_image_as_its_pose_says() -> None:
    model = SpatialVAE(ModelConfig(name="spatial-vae", dims=2, box_size=32, content_dims=2, **SMALL)).eval()
    content = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    pose = torch.tensor([[0.4, 1.0, -2.0], [-1.2, 0.0, 3.0], [2.0, -1.0, 0.5]])
    with torch.no_grad():
        moved = resample(model.canonical(content), *model.placement(pose))
        direct = model.decode(content, pose)
    inner = (..., slice(9, 24), slice(9, 24))
    torch.testing.assert_close(moved[inner], direct[inner], atol=2e-3, rtol=0)


def test_the_kl_of_a_rotation_is_the_integral() -> None:
    for spread in (0.1, 0.5, 1.5):
        angle = np.linspace(-12, 12, 200_001)
        found = np.exp(-(angle**2) / (2 * spread**2)) / (spread * math.sqrt(2 * math.pi))
        prior = np.exp(-(angle**2) / (2 * math.pi**2)) / (math.pi * math.sqrt(2 * math.pi))
        integral = np.trapezoid(found * (np.log(np.maximum(found, 1e-300)) - np.log(prior)), angle)
        ours = losses.kl_rotation(torch.tensor([[2 * math.log(spread)]]))
        assert float(ours) == pytest.approx(integral, abs=1e-4)


def test_the_kl_between_two_views_is_torchs() -> None:
    values = [torch.randn(7, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    first, second = (
        Independent(Normal(mean, (0.5 * log_variance).exp()), 1) for mean, log_variance in (values[:2], values[2:])
    )
    torch.testing.assert_close(losses.kl_between(*values), kl_divergence(first, second).mean())


def test_voxels_are_drawn_within_the_mask_for_each_particle() -> None:
    mask = view_mask(16)
    chosen = draw_voxels(mask, 4, 100, torch.Generator().manual_seed(0))
    assert chosen.shape == (4, 100)
    assert (mask.flatten()[chosen] > 0).all()
    assert (chosen[0] != chosen[1]).any()
    every = draw_voxels(mask, 2, 5000, torch.Generator())
    assert every.shape == (2, int((mask > 0).sum()))


@pytest.mark.parametrize("name", ["harmony", "vitae", "vae"])
def test_what_the_wedge_hides_costs_a_baseline_nothing(name: str) -> None:
    config = preset_config("default", BOX, {"model": {"name": name, **SMALL}})
    model = start_state(config, 1, 0, torch.device("cpu")).model
    weights = wedge_from_tilt_range(BOX, -40, 40).expand(4, -1, -1, -1)
    noise = torch.randn(4, BOX, BOX, BOX, generator=torch.Generator().manual_seed(0))
    images = torch.fft.irfftn(torch.fft.rfftn(noise, dim=(1, 2, 3)) * weights, s=(BOX,) * 3)
    everywhere = torch.ones(BOX, BOX, BOX)
    hidden = torch.fft.irfftn(torch.fft.rfftn(noise.flip(0), dim=(1, 2, 3)) * (1 - weights), s=(BOX,) * 3)
    decode = model.decode

    def reconstruction(added: torch.Tensor | float) -> float:
        model.decode = lambda content, transformation: decode(content, transformation) + added
        batch = Batch(images, weights, everywhere, 0, 0)
        # Only views as recorded have the weight of the particle alone.
        step = next(iter(OBJECTIVES[name].steps(model, batch, still, torch.Generator().manual_seed(1))))
        return float(step.terms["reconstruction"].detach())

    views = {"rotation": "vector", "max_shift_voxels": 0.0, "rotate_both": False, "reimpose_weight": True}
    still = config.model_copy(update={"views": config.views.model_copy(update=views)})
    plain, filled = reconstruction(0.0), reconstruction(3 * hidden)
    assert filled == pytest.approx(plain, rel=1e-3)
    assert reconstruction(3 * noise.flip(0)) > 1.5 * plain


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_resumes_to_the_same_losses(name: str, tmp_path: Path) -> None:
    dataset, _ = shapes(8)
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    expected = train(dataset, config_2d(name, epochs=3), whole, seed=2)
    train(dataset, config_2d(name, epochs=1), broken, seed=2)
    resumed = train(dataset, config_2d(name, epochs=3), broken, seed=2, resume=True)
    for a, b in zip(expected.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    loaded, config = load_model(broken.checkpoints / "last.pt")
    assert (type(loaded), config.model.name) == (MODELS[name], name)
    view = recorded_view(dataset.images, None, view_mask(BOX, dims=2), config.views).volumes
    with torch.no_grad():
        torch.testing.assert_close(loaded.encode(view).content.mean, expected.encode(view).content.mean)


@pytest.mark.parametrize("name", BASELINES)
def test_bfloat16_stays_close(name: str) -> None:
    dataset, _ = shapes(6)
    batch = Batch(dataset.images, None, view_mask(BOX, dims=2), 0, 0)
    totals = []
    for precision in ("float32", "bfloat16"):
        config = config_2d(name, precision=precision)
        model = start_state(config, 1, 0, torch.device("cpu")).model
        for step in OBJECTIVES[name].steps(model, batch, config, torch.Generator().manual_seed(0)):
            step.loss.backward()
            totals.append(float(step.loss.detach()))
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert totals[0] == pytest.approx(totals[1], rel=0.03)
    assert totals[0] != totals[1]


TWO_PROCESSES = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, {tests!r})
from test_baselines import BASELINES, config_2d, shapes
from cryodc.device import join_team
from cryodc.runs import RunFolder
from cryodc.training import train
out = Path({out!r})
with join_team(torch.device("cpu")) as team:
    for name in BASELINES:
        model = train(shapes(9)[0], config_2d(name), RunFolder(out / name), team=team)
        total = sum(float(p.detach().double().sum()) for p in model.parameters())
        (out / f"{{name}}{{team.rank}}").write_text(repr(total))
"""


def test_two_processes_train_one_of_every_baseline(tmp_path: Path) -> None:
    script = tmp_path / "both.py"
    script.write_text(TWO_PROCESSES.format(tests=str(Path(__file__).parent), out=str(tmp_path)))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    finished = subprocess.run(torchrun, capture_output=True, text=True, timeout=240)
    assert finished.returncode == 0, finished.stderr[-2000:]
    for name in BASELINES:
        assert (tmp_path / f"{name}0").read_text() == (tmp_path / f"{name}1").read_text()


def test_a_model_without_a_transformation_code_goes_through_every_verb(tmp_path: Path) -> None:
    from cryodc.clustering import cluster_run
    from cryodc.evaluation import evaluate_run, run_leakage
    from cryodc.report import write_report
    from cryodc.runs import load_codes
    from cryodc.simulation import SimulationConfig, choose_proteins, write_simulation
    from cryodc.training import TrainRequest, train_run

    simulation = SimulationConfig(n_per_map=12, snr=0.5, n_tomograms=3, box_size=16, spacing_angstrom=20.0)
    write_simulation(choose_proteins(["bilobe", "barrel"], []), simulation, tmp_path / "sim", with_poses=True)
    overrides = {"model": {"name": "vae", **SMALL}, "optimisation": {"epochs": 2, "batch_size": 8}}
    run, codes = train_run(TrainRequest(tmp_path / "sim" / "particles.star", tmp_path / "run", overrides=overrides))
    assert codes.transformation.shape == (24, 0)
    assert not load_codes(run).directional
    cluster_run(run, 2)
    by_name = {row.name: row for row in run_leakage(run).rows}
    assert by_name["tomogram"].transformation.reason
    evaluation = evaluate_run(run, tmp_path / "sim" / "truth.csv")
    protein = next(row for row in evaluation.disentanglement if row.factor == "protein")
    # A code of length 0 tells of two proteins what the toss of a coin tells.
    assert protein.transformation.value == pytest.approx(0.5, abs=0.1)
    page = write_report(run).read_text()
    assert "This model has no transformation code." in page
    assert ">Transformation codes<" not in page
