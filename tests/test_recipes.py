"""Every recipe and the citation say what pyproject.toml says."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "docs/recipes"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}


def pip_installs(text: str) -> list[str]:
    """What each ``pip install`` of a recipe installs."""
    joined = text.replace("\\\n", " ")
    calls = re.findall(r"pip install ([^\n&]+)", joined)
    return [call.split()[-1] for call in calls]


@pytest.mark.parametrize("name", ["Dockerfile", "cryodc.def"])
def test_a_container_has_a_python_that_cryodc_takes_and_installs_the_clone(name: str) -> None:
    text = (RECIPES / name).read_text()
    version = re.search(r"^(?:FROM|From:) python:([\d.]+)-slim$", text, re.MULTILINE)
    assert version is not None
    assert version[1] in SpecifierSet(PROJECT["requires-python"])
    assert pip_installs(text) == ["torch", "/opt/cryodc"]
    assert text.count("--constraint /opt/cryodc/constraints.txt") == 2
    assert (ROOT / "constraints.txt").is_file()
    copied = re.search(r"^COPY \. (\S+)$|^%files\n +\. (\S+)$", text, re.MULTILINE)
    assert copied is not None
    assert "/opt/cryodc" in copied.groups()


def test_containers_run_the_command() -> None:
    command = next(iter(PROJECT["scripts"]))
    assert f'ENTRYPOINT ["{command}"]' in (RECIPES / "Dockerfile").read_text()
    assert f'exec {command} "$@"' in (RECIPES / "cryodc.def").read_text()


def test_the_conda_recipe_has_version_dependencies_and_command() -> None:
    recipe = yaml.safe_load((RECIPES / "meta.yaml").read_text())
    assert recipe["package"] == {"name": PROJECT["name"], "version": PROJECT["version"]}
    assert (RECIPES / recipe["source"]["path"]).resolve() == ROOT
    assert recipe["build"]["entry_points"] == [f"{name} = {value}" for name, value in PROJECT["scripts"].items()]
    found = {}
    for line in recipe["requirements"]["run"]:
        name, _, versions = line.partition(" ")
        found[CONDA_NAMES.get(name, name)] = SpecifierSet(versions)
    wanted = {parsed.name: parsed.specifier for parsed in map(Requirement, PROJECT["dependencies"])}
    assert found == wanted | {"python": SpecifierSet(PROJECT["requires-python"])}
    assert recipe["about"]["license"] == PROJECT["license"]


def test_the_conda_environment_has_a_python_and_extras_that_are_there() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    lines = [line for line in environment["dependencies"] if isinstance(line, str)]
    python = next(line.removeprefix("python=") for line in lines if line.startswith("python="))
    assert f"{python}.0" in SpecifierSet(PROJECT["requires-python"])
    assert "pip" in lines
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip[0] == "--constraint constraints.txt"
    editable = next(re.fullmatch(r"--editable \.\[([\w,]+)\]", line) for line in pip if line.startswith("--editable"))
    assert editable is not None
    assert set(editable[1].split(",")) <= set(PROJECT["optional-dependencies"])
    assert set(pip[1:-1]) <= {Requirement(line).name for line in PROJECT["dependencies"]}


def test_the_citation_is_a_valid_one_of_this_version() -> None:
    """The required keys of CFF 1.2.0, and the kinds of its values."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert cited["cff-version"] == "1.2.0"
    known = {"cff-version", "message", "type", "title", "abstract", "version", "license", "authors", "references"}
    assert set(cited) <= known
    assert (cited["title"], cited["version"]) == (PROJECT["name"], PROJECT["version"])
    assert cited["license"] == PROJECT["license"]
    assert cited["abstract"] == PROJECT["description"]
    for author in [*cited["authors"], *(author for work in cited["references"] for author in work["authors"])]:
        assert set(author) in ({"name"}, {"family-names", "given-names"})
    for work in cited["references"]:
        assert {"type", "title", "authors"} <= set(work)
        assert isinstance(work["year"], int)


def test_what_is_said_of_pip_names_what_there_is() -> None:
    """Nothing is on a package index: a clone is installed, with extras that pyproject.toml has."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "cryodc").rglob("*.py")]
    pages += [*(ROOT / "cli").rglob("*.py")]
    said = [
        (page.name, words)
        for page in pages
        for words in re.findall(r"pip install ([^\n`#|]+)", page.read_text(encoding="utf-8"))
    ]
    assert said
    for page, words in said:
        clone = re.match(r"'?\.(?:\\?\[(\w+)\\?\])?'?(?![\w.])", words)
        assert clone is not None, (page, words)
        assert clone[1] is None or clone[1] in PROJECT["optional-dependencies"], (page, words)
