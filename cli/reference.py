"""Every verb's help as one Markdown page: ``python -m cryodc_cli.reference > docs/commands.md``."""

import click
from cryodc_cli.main import VERBS, load_verb

HEAD = """# Commands

What `cryodc VERB --help` says. Written by `python -m cryodc_cli.reference`; a test compares.
"""


def reference() -> str:
    """The page docs/commands.md."""
    return "\n".join([HEAD, *(_section(verb) for verb in VERBS)])


def _section(verb: str) -> str:
    command = load_verb(verb)
    context = click.Context(command, info_name=f"cryodc {verb}", **command.context_settings)
    formatter = click.HelpFormatter(width=100)
    # The plain formatting of click: boxes and colours are for terminals.
    click.Command.format_usage(command, context, formatter)
    click.Command.format_help_text(command, context, formatter)
    click.Command.format_options(command, context, formatter)
    return f"## {verb}\n\n```\n{formatter.getvalue().rstrip()}\n```\n"


if __name__ == "__main__":
    click.echo(reference(), nl=False)
