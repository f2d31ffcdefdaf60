"""Names that ``cryodc identify`` gave the classes: in the report and in what leaves the run, but not once stale."""

import shutil
from pathlib import Path

import anndata
import pytest
import starfile

from cryodc.export import export_anndata, export_run
from cryodc.report import write_report
from cryodc.runs import IdentifySummary, RunFolder, current_names, fingerprint_of_averages, write_summary


@pytest.fixture
def named(small_run: Path, tmp_path: Path) -> RunFolder:
    """Class 1 is a ribosome, class 2 nothing of the library."""
    run = RunFolder(Path(shutil.copytree(small_run, tmp_path / "run")))
    run.identified.mkdir()
    classes = [{"class": 1, "name": "80S ribosome", "why": "as told"}, {"class": 2, "name": "none", "why": "as told"}]
    made_of = fingerprint_of_averages(run)
    write_summary(
        run.identified,
        IdentifySummary(made_of=made_of, library="lib", left_out={}, n_decoys=24, seed=0, classes=classes),
    )
    return run


def test_the_report_names_the_class(named: RunFolder) -> None:
    page = write_report(named).read_text()
    assert "<h3>Class 1: 80S ribosome</h3>" in page
    assert "<h3>Class 2</h3>" in page


def test_particles_that_leave_the_run_carry_the_name_of_their_class(named: RunFolder, tmp_path: Path) -> None:
    export_run(named, tmp_path / "out", ["relion"])
    table = starfile.read(tmp_path / "out/particles.star")["particles"]
    names = {1: "80S ribosome", 2: "none"}
    assert list(table["cdcName"]) == [names[number] for number in table["rlnClassNumber"]]
    export_anndata(named, tmp_path / "codes.h5ad")
    obs = anndata.read_h5ad(tmp_path / "codes.h5ad").obs
    assert list(obs["name"]) == [names[number] for number in obs["class"]]


def test_names_of_earlier_averages_are_not_shown(named: RunFolder, tmp_path: Path) -> None:
    star = named.averages / "particles.star"
    star.write_text(star.read_text() + "\n")
    assert current_names(named) == {}
    export_run(named, tmp_path / "out", ["relion"])
    assert "cdcName" not in starfile.read(tmp_path / "out/particles.star")["particles"]


def test_no_column_that_is_written_begins_with_the_name_of_this_program(small_run: Path) -> None:
    """Warp and M keep what does not begin with rln; ours begin with cdc."""
    from cryodc.states.files import STATE_LABEL

    assert STATE_LABEL == "cdcState"
    labels = set()
    for star in small_run.rglob("*.star"):
        labels |= {line.split()[0] for line in star.read_text().splitlines() if line.startswith("_")}
    assert {label for label in labels if not label.startswith("_rln")} == {"_cdcVerdict"}
