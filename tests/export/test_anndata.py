"""``cryodc export --anndata``: read back with anndata, beside the STAR as starfile reads it."""

import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import starfile
from click.testing import CliRunner
from cryodc_cli.main import load_verb

from cryodc.errors import InputError
from cryodc.export import export_anndata
from cryodc.runs import RunFolder, load_codes, read_arrays


def read(run: Path, out: Path) -> anndata.AnnData:
    done = CliRunner().invoke(load_verb("export"), [str(run), "--anndata", str(out)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert f"24 particles: {out}" in done.output.replace("\n", "")
    return anndata.read_h5ad(out)


def test_every_column_of_the_star_comes_back_by_its_name_and_kind(small_run: Path, tmp_path: Path) -> None:
    table = read(small_run, tmp_path / "codes.h5ad")
    star = starfile.read(small_run / "averages/particles.star")["particles"]
    assert list(table.obs_names) == list(star["rlnImageName"])
    for label in star:
        assert table.obs[label].dtype.kind == ("O" if star[label].dtype.kind not in "if" else star[label].dtype.kind)
        if star[label].dtype.kind in "if":
            np.testing.assert_allclose(table.obs[label], star[label], atol=1e-9)
        else:
            assert list(table.obs[label]) == list(star[label])
    summary = pd.read_json(small_run / "averages/summary.json", typ="series")
    verdicts = {entry["class"]: entry["verdict"] for entry in summary["classes"]}
    np.testing.assert_array_equal(table.obs["class"], star["rlnClassNumber"])
    assert list(table.obs["verdict"]) == [verdicts[number] for number in star["rlnClassNumber"]]
    clusters = pd.read_json(small_run / "clusters/summary.json", typ="series")
    confidence = dict(zip(clusters["names"], clusters["confidence"], strict=True))
    np.testing.assert_allclose(table.obs["confidence"], [confidence[name] for name in table.obs_names])


def test_codes_embedding_and_coordinates_stand_at_their_particles(small_run: Path, tmp_path: Path) -> None:
    table = read(small_run, tmp_path / "codes.h5ad")
    arrays = read_arrays(small_run / "codes.npz", "cryodc train")
    order = [arrays["names"].tolist().index(name) for name in table.obs_names]
    codes = load_codes(RunFolder(small_run))
    content = arrays.get("template_content", codes.content_points)
    np.testing.assert_array_equal(table.X, content[order])
    np.testing.assert_array_equal(table.obsm["X_transformation"], codes.transformation_points[order])
    # The two components hold what no other plane holds more of: the two largest eigenvalues of the covariance.
    largest = np.linalg.eigvalsh(np.cov(content.astype(float), rowvar=False).reshape(content.shape[1], -1))[::-1][:2]
    spread = np.var(table.obsm["X_pca"], axis=0, ddof=1)
    np.testing.assert_allclose(spread[: len(largest)], largest, rtol=1e-3, atol=1e-9)
    star = starfile.read(small_run / "averages/particles.star")
    optics, particles = star["optics"], star["particles"]
    pixel = float(np.ravel(optics["rlnImagePixelSize"])[0])
    for i, axis in enumerate("XYZ"):
        expected = particles[f"rlnCoordinate{axis}"] * pixel - particles[f"rlnOrigin{axis}Angst"]
        np.testing.assert_allclose(table.obsm["spatial"][:, i], expected, atol=1e-3)
    assert table.uns["cryodc"]["spatial"] == "x, y, z in Å from the first voxel of the tomogram"
    assert len(table.uns["cryodc"]["codes"]) == 64


def test_a_run_without_classes_has_its_codes_exported(small_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.yaml", "codes.npz", "particles.star"):
        shutil.copy(small_run / name, run / name)
    table = read(run, tmp_path / "codes.h5ad")
    assert "class" not in table.obs
    assert "rlnImageName" in table.obs
    assert "clusters" not in table.uns["cryodc"]


def test_nothing_is_overwritten_and_a_folder_needs_a_program(small_run: Path, tmp_path: Path) -> None:
    (tmp_path / "codes.h5ad").write_text("mine")
    with pytest.raises(InputError, match="refusing to overwrite"):
        export_anndata(RunFolder(small_run), tmp_path / "codes.h5ad")
    assert (tmp_path / "codes.h5ad").read_text() == "mine"
    command = [str(small_run), "--anndata", str(tmp_path / "b.h5ad"), "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(load_verb("export"), command).exit_code == 2
    assert not (tmp_path / "b.h5ad").exists()
