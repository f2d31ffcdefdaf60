"""Hooks of the documentation site: the home page is the upper part of the README."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

README = Path(__file__).parents[2] / "README.md"
_END = "Where to read on:"


def home_page() -> str:
    """The README without its list of pages, with links as they are from within ``docs/``."""
    return README.read_text(encoding="utf-8").partition(_END)[0].replace("](docs/", "](")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the home page."""
    files.append(File.generated(config, "index.md", content=home_page()))
    return files
