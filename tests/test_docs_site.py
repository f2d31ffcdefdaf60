"""The documentation as a site: it builds strictly, and its generated pages are current."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cryodc import InputError

ROOT = Path(__file__).parents[1]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "site" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    # Strict: a link to no page or to no heading, a page outside the navigation, a name that is not there are errors.
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return out


def test_the_home_page_is_the_first_screen_of_the_readme(site: Path) -> None:
    page = (site / "index.html").read_text(encoding="utf-8")
    assert "Which proteins are in these subtomograms" in page
    assert 'href="benchmarks.html#sets-floors-and-ablation"' in page
    assert "docs/" not in page


def test_the_api_lists_every_public_name_of_every_room(site: Path) -> None:
    page = (site / "api.html").read_text(encoding="utf-8")
    rooms = [path.parent.name for path in (ROOT / "cryodc").glob("*/__init__.py")]
    assert [room for room in rooms if f'id="cryodc.{room}"' not in page] == []
    for name in ("fourier.fourier_shell_correlation", "alignment.align_class", "star.read_star", "runs.RunFolder"):
        assert f'id="cryodc.{name}"' in page


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.glob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link)[^>]*(?:src|href)="(https?://[^"]*)"', page.read_text(encoding="utf-8")
        )
        assert loaded == [], page.name


def test_every_picture_is_small_and_stands_on_a_page_with_a_text_for_who_cannot_see_it() -> None:
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md")]
    shown = {name: text for page in pages for text, name in re.findall(r"!\[([^\]]*)\]\(pictures/([^)]*)\)", page)}
    pictures = {path.name: path.stat().st_size for path in (ROOT / "docs" / "pictures").iterdir()}
    assert pictures.keys() == shown.keys()
    assert len(pictures) >= 5
    assert max(pictures.values()) < 150_000
    assert min(len(text) for text in shown.values()) > 40


def test_troubleshooting_lists_the_messages_of_the_code_as_they_are() -> None:
    troubleshooting = script("troubleshooting")
    written = troubleshooting.PAGE.read_text(encoding="utf-8")
    assert written == troubleshooting.page(written), "run: python docs/site/troubleshooting.py"


def test_every_message_says_what_was_expected_or_what_to_do() -> None:
    troubleshooting = script("troubleshooting")
    files = [*ROOT.glob("cryodc/**/*.py"), *ROOT.glob("cli/**/*.py")]
    rows = [row for file in files for row in troubleshooting.messages(file)]
    assert len(rows) > 250
    assert [problem for problem, expected, remedy in rows if not (expected or remedy) and problem.strip("… ")] == []


def test_a_message_that_a_user_sees_stands_on_the_page(tmp_path: Path) -> None:
    from cryodc.io import read_volume

    short = tmp_path / "short.mrc"
    short.write_bytes(b"cut off")
    with pytest.raises(InputError) as caught:
        read_volume(short)
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert f"| {caught.value.problem} | " in page
    assert f" | {caught.value.remedy} |" in page


def test_messages_are_read_from_the_source(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text(
        "def check(box, name):\n"
        "    what = 'odd' if box % 2 else 'small'\n"
        "    remedy = 'crop it'\n"
        "    raise InputError(f'the box of {name} is {what} ' + f'({box + 1})', expected=what, remedy=remedy)\n"
    )
    assert list(script("troubleshooting").messages(source)) == [
        ("the box of ‹name› is ‹what› (…)", "odd / small", "crop it")
    ]
