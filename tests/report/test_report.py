import base64
import gzip
import hashlib
import json
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryodc.clustering import cluster_run
from cryodc.figures import class_colour
from cryodc.generate import pictures
from cryodc.report import cards, decoded, points, write_report
from cryodc.report import page as page_module
from cryodc.runs import RunFolder, load_clusters


class Links(HTMLParser):
    """Every address a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value for name, value in attrs if name in ("src", "href") and value]


@pytest.fixture(scope="module", autouse=True)
def _pictures_are_drawn_once() -> Iterator[None]:
    """The pages of these tests differ in a few words: a picture of the same voxels is the same, and is kept."""
    drawn: dict[bytes, Any] = {}

    def once(draw: Callable[..., Any]) -> Callable[..., Any]:
        def drawn_before(*given: Any, **settings: Any) -> Any:
            key = hashlib.sha256(pickle.dumps((draw.__name__, given, sorted(settings.items())))).digest()
            if key not in drawn:
                drawn[key] = draw(*given, **settings)
            return drawn[key]

        return drawn_before

    with pytest.MonkeyPatch.context() as patched:
        for module, names in (
            (cards, ("orthoslices_png", "surface_png", "turned_volume", "data_uri")),
            (decoded, ("data_uri",)),
            (points, ("data_uri",)),
            (pictures, ("grid_png", "traversal_png", "slices_png")),
            (page_module, ("packed",)),
        ):
            for name in names:
                patched.setattr(module, name, once(getattr(module, name)))
        yield


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(shutil.copytree(small_run, tmp_path / "run"))


def figure(page: str, name: str) -> dict:
    found = re.search(rf'id="data-{name}">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found.group(1))


def doubts(page: Path) -> str:
    text = page.read_text()
    return text[text.index('id="trust"') : text.index('id="next"')]


def unpacked(page: str, name: str) -> bytes:
    found = re.search(rf'id="data-{name}">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return gzip.decompress(base64.b64decode(found.group(1)))


def test_the_page_needs_no_other_file(run: RunFolder) -> None:
    page = write_report(run).read_text()
    links = Links()
    links.feed(page)
    assert links.addresses
    assert all(address.startswith(("data:image/webp;base64,", "#")) for address in links.addresses)
    assert page.count("plotly.js v") == 0
    assert "plotly.js v" in unpacked(page, "plotly").decode()


def test_the_page_says_what_was_found(run: RunFolder) -> None:
    page = write_report(run).read_text()
    clusters = load_clusters(run)
    assert clusters.verdict in page
    about = json.loads(unpacked(page, "points"))
    labels = np.frombuffer(unpacked(page, "labels"), "<i2")
    assert np.array_equal(labels, clusters.labels + 1)
    assert about["colours"][1:] == [class_colour(1), class_colour(2)]
    assert len(about["tomograms"]["names"]) == 3
    rows = unpacked(page, "rows").decode().splitlines()
    assert [row.split()[about["name"]] for row in rows] == list(clusters.names)
    assert len(figure(page, "fsc")["data"]) == 2
    assert "<dt>learning rate</dt><dd>0.001</dd>" in page
    assert "2 classes among 24 particles of 3 tomograms." in page
    for entry in json.loads((run.averages / "summary.json").read_text())["classes"]:
        assert f'<td class="words">{entry["verdict"]}: {entry["reason"]}</td>' in re.sub(r"</?span[^>]*>", "", page)
    assert "Each has an average whose two halves agree, so a structure." in page


def test_a_class_that_is_not_aligned_is_a_warning_and_not_a_structure(run: RunFolder) -> None:
    summary = run.averages / "summary.json"
    content = json.loads(summary.read_text())
    content["classes"][0] |= {"aligned": False, "note": "its halves disagree"}
    summary.write_text(json.dumps(content))
    page = write_report(run).read_text()
    assert "Not aligned: not a structure.</b> its halves disagree" in page
    assert "Class 1 has no structure: the two halves of the particles do not give the same map." in page
    assert "Surface of class 1" not in page
    assert "Surface of class 2" in page
    assert [curve["name"] for curve in figure(page, "fsc")["data"]] == ["class 2"]


def test_a_class_that_looks_like_a_bead_is_not_to_be_trusted_nor_refined(run: RunFolder) -> None:
    summary = run.averages / "summary.json"
    content = json.loads(summary.read_text())
    for entry, verdict in zip(content["classes"], ("bead-like", "protein"), strict=True):
        entry |= {"aligned": True, "verdict": verdict, "reason": "as the test says"}
    summary.write_text(json.dumps(content))
    page = write_report(run).read_text()
    assert "Class 1 may be no protein, but bead-like: as the test says." in page
    assert "--relion --class 2 --out for_relion" in page


def test_a_run_of_no_structure_has_no_empty_plot(run: RunFolder) -> None:
    summary = run.averages / "summary.json"
    content = json.loads(summary.read_text())
    for entry in content["classes"]:
        entry |= {"aligned": False, "resolution_angstrom": None}
    summary.write_text(json.dumps(content))
    page = write_report(run).read_text()
    assert 'id="data-fsc"' not in page
    assert "None has an average whose two halves agree" in page
    assert "nan" not in re.sub(r"<script.*?</script>|<style.*?</style>|<[^>]*>", "", page, flags=re.DOTALL).lower()


def test_a_resolution_of_two_voxels_is_limited_by_them(run: RunFolder) -> None:
    summary = run.averages / "summary.json"
    content = json.loads(summary.read_text())
    content["classes"][0]["resolution_angstrom"] = 30.0
    content["classes"][1]["resolution_angstrom"] = 33.89
    summary.write_text(json.dumps(content))
    page = write_report(run).read_text()
    assert re.sub(r"</?span[^>]*>", "", page).count("30.0 Å, limited by the voxel size") == 3
    assert "33.9 Å, limited" not in page


def test_a_confidence_that_is_forced_is_not_printed(run: RunFolder) -> None:
    cluster_run(run, 1)
    page = write_report(run).read_text()
    front = page[page.index('<table class="classes">') : page.index('id="trust"')]
    assert "1.00" not in front
    assert "Stability" not in page
    assert "the chosen one has the larger points" not in page
    # One was asked for, so nothing was sought that tells them apart.
    assert "One class of 24 particles of 3 tomograms: it was not tested whether they are several." in page
    assert "[100.0" not in front


def test_what_a_network_decodes_that_has_learned_nothing_is_not_shown(run: RunFolder) -> None:
    lines = run.log.read_text().splitlines()
    cells = lines[-1].split(",")
    at = lines[0].split(",").index("reconstruction")
    cells[at] = str(0.99 * float(lines[1].split(",")[at]))
    run.log.write_text("\n".join([*lines[:-1], ",".join(cells)]) + "\n")
    page = write_report(run).read_text()
    assert "The network has not learned to reconstruct particles" in page
    assert 'alt="Content codes decoded with' not in page
    assert 'alt="Particles slice by slice' in page


def test_what_templates_were_left_out_for_is_a_doubt(run: RunFolder) -> None:
    """The verb says it while it trains; who opens the page later reads it too."""
    assert "Templates were left out because 24 particles are fewer than 120: codes" in doubts(write_report(run))
    (run.templates / "left_out.txt").unlink()
    assert "emplates were left out" not in doubts(write_report(run))


def test_missing_parts_name_the_command_that_makes_them(run: RunFolder) -> None:
    shutil.rmtree(run.averages)
    page = write_report(run).read_text()
    assert "<code>cryodc average</code>" in page
    shutil.rmtree(run.clusters)
    page = write_report(run).read_text()
    assert "<code>cryodc cluster</code>" in page


def test_the_model_is_shown_by_a_grid_and_a_traversal_of_every_class(run: RunFolder) -> None:
    page = write_report(run).read_text()
    for shown in (
        "Content codes decoded with",
        "Traversal of class 1",
        "Traversal of class 2",
        "Particles slice by slice",
    ):
        assert f'alt="{shown}' in page
    assert re.search(r"Of the variance between cells \d+% goes with the content code", page)
    shutil.rmtree(run.averages)
    shutil.rmtree(run.clusters)
    page = write_report(run).read_text()
    assert "the medoid of a group of content codes" in page
    assert "No classes to traverse yet. Run <code>cryodc cluster</code>" in page
    shutil.rmtree(run.checkpoints)
    assert "No model to decode with" in write_report(run).read_text()


def test_a_report_is_written_when_the_images_have_moved_and_says_so(run: RunFolder) -> None:
    config = run.config.read_text()
    run.config.write_text(config.replace("/sim", "/moved"))
    page = write_report(run).read_text()
    assert "No particle is shown: their images are no longer where they were" in page
    assert re.search(r"\d+ of \d+ particles are not shown", page)
    assert 'alt="Particle ' not in page
    assert 'alt="Content codes decoded with' in page
    assert "Central slices of class 1" in page


def test_averages_of_earlier_classes_are_not_shown_under_the_new_ones(run: RunFolder) -> None:
    cluster_run(run, 3)
    page = write_report(run).read_text()
    assert "The averages are of earlier classes. Run <code>cryodc average</code>" in page
    assert "Central slices of class" not in page
    assert 'id="data-fsc"' not in page


def test_names_cannot_smuggle_markup_into_the_page(run: RunFolder) -> None:
    config = run.config.read_text()
    run.config.write_text(config.replace("command: ", "command: </pre><script>alert(1)</script> "))
    assert "<script>alert(1)" not in write_report(run).read_text()


def test_a_tomogram_may_be_called_like_the_start_of_a_script(run: RunFolder) -> None:
    star = run.particles.read_text()
    run.particles.write_text(star.replace("tomogram01", "<!--<script>"))
    page = write_report(run).read_text()
    assert "<!--<script>" in json.loads(unpacked(page, "points"))["tomograms"]["names"]
    assert "<!--<script" not in page


def test_the_page_shows_shares_with_intervals_and_how_fourier_space_was_measured(run: RunFolder) -> None:
    page = write_report(run).read_text()
    summary = json.loads((run.averages / "summary.json").read_text())["classes"]
    for row in summary:
        low, high = (f"{100 * bound:.1f}" for bound in row["fraction_interval"])
        assert f"[{low}–{high} %]" in page
        assert f"efficiency {row['fourier_efficiency']:.2f}" in page
        assert f"FSC in Å, Fourier coverage and view directions of class {row['class']}" in page
    lines = (run.averages / "fractions.csv").read_text().splitlines()[1:]
    last = lines[-1].split(",")
    assert f"{100 * float(last[3]):.1f} %" in page
    assert all(f"<tr><td>{line.split(',')[0]}</td>" in page for line in lines)


def test_the_finest_structure_is_a_protein_and_no_gold(run: RunFolder) -> None:
    """Beads agree to the last shell. The front page says how many classes look like proteins, and which is finest."""
    summary = run.averages / "summary.json"
    content = json.loads(summary.read_text())
    for entry, verdict, resolution in zip(content["classes"], ("bead-like", "protein"), (20.0, 45.0), strict=True):
        entry |= {"aligned": True, "verdict": verdict, "resolution_angstrom": resolution}
    summary.write_text(json.dumps(content))
    page = write_report(run).read_text()
    assert "One looks like a protein." in page
    assert "The finest protein is class 2, at 45" in page
