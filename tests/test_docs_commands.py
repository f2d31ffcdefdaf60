"""No page shows a command, an option, a setting or a benchmark that does not exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from cryodc_cli.main import VERBS, load_verb

import cryodc.templates
from cryodc.models import TrainConfig

ROOT = Path(__file__).parents[1]
# commands.md is what the verbs say of themselves.
PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")} - {ROOT / "docs" / "commands.md"})
_FENCED = re.compile(r"^```.*?^```|^    [^\n]*", re.MULTILINE | re.DOTALL)
_PLACEHOLDER = re.compile(r"[A-Z_Å]+|…|\.\.\.")


def command_lines(text: str) -> Iterator[tuple[str, bool]]:
    """Every ``cryodc VERB …`` of a page, and whether it stands in a block of code, where it is to be copied."""
    for block in _FENCED.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            if ">>>" not in line and not line.lstrip().startswith(("Usage:", "Example:", "#")):
                yield from ((found, True) for found in re.findall(r"(?<![\w/.\[`])(?<!from )cryodc [a-z].*", line))
    for inline in re.findall(r"`(cryodc [a-z][^`]*)`", _FENCED.sub("", text)):
        yield " ".join(inline.split()), False


def arguments(line: str) -> tuple[str, list[str]]:
    """The verb and what follows it, as far as the shell gives it to cryodc."""
    words = shlex.split(re.split(r"\s(?:&&|\||;|>)\s", line)[0], comments=True)
    return words[1], words[2:]


def require_parses(line: str, whole: bool) -> None:
    """Parse as click does, and convert every value that is no file; nothing is run.

    Prose may name a verb without its arguments, or an option without its value.
    """
    verb, words = arguments(line)
    if verb not in VERBS:
        raise click.UsageError(f"there is no verb {verb}")
    command = load_verb(verb)
    context = click.Context(command, info_name=verb, **command.context_settings)
    try:
        values, rest, _ = command.make_parser(context).parse_args(words)
    except click.BadOptionUsage:
        if whole:
            raise
        return
    if rest:
        raise click.UsageError(f"too many arguments: {rest}")
    for parameter in command.params:
        if whole and parameter.required and values.get(parameter.name) is None:
            raise click.MissingParameter(param=parameter, ctx=context)
        given = values.get(parameter.name)
        if given is None or isinstance(parameter.type, (click.Path, click.File)):
            continue
        texts = [text for item in (given if isinstance(given, (list, tuple)) else [given]) for text in _flat(item)]
        if not any(isinstance(text, str) and _PLACEHOLDER.fullmatch(text) for text in texts):
            for text in texts:
                if isinstance(text, str):
                    _one_type(parameter).convert(text, parameter, context)


def _flat(item: object) -> list[object]:
    return list(item) if isinstance(item, (list, tuple)) else [item]


def _one_type(parameter: click.Parameter) -> click.ParamType:
    return parameter.type.types[0] if isinstance(parameter.type, click.Tuple) else parameter.type  # type: ignore[return-value]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_parses(page: Path) -> None:
    wrong = []
    for line, whole in command_lines(page.read_text(encoding="utf-8")):
        try:
            require_parses(line, whole)
        except click.UsageError as error:
            wrong.append(f"{line}: {error.format_message()}")
    assert wrong == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_example_in_a_help_parses(verb: str) -> None:
    examples = re.findall(r": (cryodc [^\n]+(?:\n[^\n]+)*)", load_verb(verb).help or "")
    assert examples, verb
    for example in examples:
        require_parses(" ".join(example.split()), whole=True)


@pytest.mark.parametrize(
    "line",
    [
        "cryodc fly run/",
        "cryodc average run/ --no-such-option",
        "cryodc cluster run/ -k many",
        "cryodc train a.star b.star",
        "cryodc train a.star --model gan",
        "cryodc extract a.mrc --box 64",
        "cryodc train particles.star --tilt-range -60",
    ],
)
def test_a_wrong_command_is_noticed(line: str) -> None:
    with pytest.raises(click.UsageError):
        require_parses(line, whole=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_benchmark_exists(page: Path) -> None:
    named = set(re.findall(r"python -m (benchmarks[\w.]+)", page.read_text(encoding="utf-8")))
    assert [name for name in sorted(named) if not (ROOT / f"{name.replace('.', '/')}.py").is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_exists(page: Path) -> None:
    config = TrainConfig.model_validate({"model": {"box_size": 16}})
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`(model|loss|views|optimisation|templates)\.(\w+)(?:: [^`]*)?`", text)
    known = {*vars(config), *(name for section in vars(config) for name in vars(getattr(config, section)))}
    assert [name for _, name in named if name not in known and not hasattr(cryodc.templates, name)] == []
