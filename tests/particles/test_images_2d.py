import re
import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cryodc_cli.learn.cluster import cluster as cluster_command

from cryodc.clustering import cluster_run
from cryodc.errors import InputError
from cryodc.figures import load_previews
from cryodc.generate import GenerateRequest, generate_run
from cryodc.io import ImageFinder
from cryodc.particles import holds_images, read_image_particles, read_images
from cryodc.report import write_report
from cryodc.runs import RunFolder, load_codes, load_config, save_config
from cryodc.star import read_star
from cryodc.training import TrainRequest, load_model, train_run
from cryodc.training.workflow import prepare_run

BOX = 16
HEAD = """
data_optics

loop_
_rlnOpticsGroup #1
_rlnImagePixelSize #2
_rlnImageSize #3
_rlnImageDimensionality #4
1 2.5 {box} 2

data_particles

loop_
_rlnImageName #1
_rlnMicrographName #2
_rlnCoordinateX #3
_rlnCoordinateY #4
_rlnDefocusU #5
_rlnOpticsGroup #6
"""


def write_project(folder: Path, rows: list[str] | None = None, box: int = BOX) -> Path:
    """Two stacks of six images, named in turn and backwards."""
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        with mrcfile.new(folder / f"{name}.mrcs", overwrite=True) as stack:
            stack.set_data(generator.normal(size=(6, box, box)).astype(np.float32))
            stack.set_image_stack()
            stack.voxel_size = 2.5
    if rows is None:
        rows = [f"{6 - i:06d}@{name}.mrcs" for i in range(6) for name in ("b", "a")]
    lines = [f"{row} {row[-6]}.mrc 100 200 12000 1" for row in rows]
    star = folder / "images.star"
    star.write_text(HEAD.format(box=box) + "\n".join(lines) + "\n")
    return star


def test_every_image_is_the_one_its_row_names(tmp_path: Path) -> None:
    star = write_project(tmp_path)
    document = read_star(star)
    assert holds_images(document)
    particles = read_image_particles(document, ImageFinder.beside(star, None))
    assert particles.names[:3] == ("000006@b.mrcs", "000006@a.mrcs", "000005@b.mrcs")
    assert (particles.box_size, particles.spacing_angstrom) == (BOX, 2.5)
    assert particles.tomograms[:2] == ("b.mrc", "a.mrc")
    images = read_images(particles)
    for name, image in zip(particles.names, images, strict=True):
        section, file = name.split("@")
        with mrcfile.open(tmp_path / file) as stack:
            np.testing.assert_array_equal(image, stack.data[int(section) - 1])


@pytest.mark.parametrize("model", ["dualcontrast", "vae"])
def test_images_are_trained_on_and_clustered(tmp_path: Path, model: str) -> None:
    star = write_project(tmp_path)
    overrides = {
        "model": {"name": model, "width": 8, "max_channels": 16, "hidden": 16},
        "optimisation": {"epochs": 1, "batch_size": 6},
    }
    run, codes = train_run(TrainRequest(star, tmp_path / "run", overrides=overrides))
    assert codes.names[0] == "000006@b.mrcs"
    assert run.particles.read_text() == star.read_text()
    cluster_run(run, 2)
    classes = read_star(run.clusters / "clusters.star").block("particles").column("rlnClassNumber")
    assert set(classes) == {"1", "2"}
    _, again = train_run(TrainRequest(star, tmp_path / "run", overrides=overrides, resume=True))
    np.testing.assert_array_equal(again.content, codes.content)


def test_inverted_images_are_the_negatives(tmp_path: Path) -> None:
    star = write_project(tmp_path)
    plain, inverted = (
        prepare_run(TrainRequest(star, tmp_path / name, invert=invert)).dataset
        for name, invert in (("plain", False), ("inverted", True))
    )
    np.testing.assert_allclose(inverted.images, -plain.images, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["000001@a.mrcs", "000001@a.mrcs"], "two particles have the same name"),
        (["000007@a.mrcs"], "not an image of its stack"),
        (["000000@a.mrcs"], "not an image of its stack"),
        (["a.mrcs"], "not an image of its stack"),
        (["000001@c.mrcs"], "c.mrcs"),
    ],
)
def test_a_bad_row_is_one_clear_error(tmp_path: Path, rows: list[str], message: str) -> None:
    star = write_project(tmp_path, rows)
    with pytest.raises(InputError, match=message):
        prepare_run(TrainRequest(star, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_sizes_and_options_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="images of this size"):
        prepare_run(TrainRequest(write_project(tmp_path, box=15), tmp_path / "run"))
    star = write_project(tmp_path)
    with pytest.raises(InputError, match="neither a tilt range nor a pack"):
        prepare_run(TrainRequest(star, tmp_path / "run", tilt_range=(-60.0, 60.0)))
    with pytest.raises(InputError, match="settings are for volumes"):
        prepare_run(TrainRequest(star, tmp_path / "run", overrides={"model": {"dims": 3}}))
    with pytest.raises(InputError, match="images in colour"):
        prepare_run(TrainRequest(star, tmp_path / "run", preset="paper-linemod"))
    assert not (tmp_path / "run").exists()


def test_tilt_stacks_are_still_sent_to_import(tmp_path: Path) -> None:
    star = write_project(tmp_path)
    star.write_text("data_general\n\n_rlnTomoSubTomosAre2DStacks 1\n" + star.read_text())
    with pytest.raises(InputError, match="cryodc import"):
        prepare_run(TrainRequest(star, tmp_path / "run"))


def test_image_settings_for_subtomograms_are_refused(tmp_path: Path) -> None:
    from cryodc.simulation import SimulationConfig, choose_proteins, write_simulation

    simulation = SimulationConfig(n_per_map=2, snr=0.5, box_size=16, spacing_angstrom=20.0)
    write_simulation(choose_proteins(["bilobe"], []), simulation, tmp_path / "sim")
    request = TrainRequest(tmp_path / "sim" / "particles.star", tmp_path / "run", preset="paper-mnist")
    with pytest.raises(InputError, match="settings are for images"):
        prepare_run(request)


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A trained and clustered run of images; shared, so never write into it."""
    folder = tmp_path_factory.mktemp("images")
    overrides = {"model": {"width": 8, "max_channels": 16, "hidden": 16}, "optimisation": {"epochs": 1}}
    run, _ = train_run(TrainRequest(write_project(folder), folder / "run", overrides=overrides))
    cluster_run(run, 2)
    return run


def test_a_grid_of_images_is_what_the_model_decodes(clustered: RunFolder, tmp_path: Path) -> None:
    codes = load_codes(clustered)
    model, _ = load_model(clustered.checkpoints / "last.pt")
    told: list[str] = []
    request = GenerateRequest(tmp_path / "seen", content_from=("2",), transformation_from=("5",), n_particles=3)
    generate_run(clustered, request, told.append)
    assert not any("not shown" in line for line in told)
    with torch.no_grad():
        expected = model.decode(torch.from_numpy(codes.content[1:2]), torch.from_numpy(codes.transformation[4:5]))[0]
    with mrcfile.open(tmp_path / "seen" / "grid" / "row01_column01.mrc") as file:
        np.testing.assert_allclose(file.data.reshape(BOX, BOX), expected, atol=1e-5)
    assert {"grid", "codes.png", "particles.png"} <= {path.name for path in (tmp_path / "seen").iterdir()}


def test_the_particle_beside_a_grid_is_its_image_as_recorded(clustered: RunFolder) -> None:
    shown = load_previews(clustered).show(0)
    with mrcfile.open(clustered.path.parent / "b.mrcs") as stack:
        image = stack.data[5]
    assert shown.raw is not None
    np.testing.assert_allclose(shown.raw, (image - image.mean()) / image.std(), atol=1e-5)


def test_the_report_shows_members_of_classes_and_asks_for_no_averages(clustered: RunFolder, tmp_path: Path) -> None:
    run = RunFolder(shutil.copytree(clustered.path, tmp_path / "run"))
    page = write_report(run).read_text()
    assert "The surest members of each class" in page
    assert "cryodc average" not in page
    assert f"box of {BOX}² pixels" in page
    shown = re.sub(r"<script.*?</script>|<style.*?</style>", "", page, flags=re.DOTALL)
    shown = shown.replace(load_config(run)["command"], "")
    assert "tomogram" not in shown
    assert "wedge" not in shown
    assert "2 micrographs" in re.sub(r"<[^>]*>", " ", shown).replace("  ", " ")


def test_images_that_have_moved_are_left_out_of_the_report(clustered: RunFolder, tmp_path: Path) -> None:
    run = RunFolder(shutil.copytree(clustered.path, tmp_path / "run"))
    config = load_config(run)
    save_config(run, {**config, "image_folders": [str(tmp_path / "elsewhere")]})
    page = write_report(run).read_text()
    assert "No member is shown" in page


def test_clustered_images_are_not_sent_to_averaging(clustered: RunFolder, tmp_path: Path) -> None:
    run = shutil.copytree(clustered.path, tmp_path / "run")
    result = CliRunner().invoke(cluster_command, [str(run), "-k", "2"])
    assert result.exit_code == 0, result.output
    assert "Next: cryodc generate" in result.output
    assert "cryodc average" not in result.output
