"""``--quiet`` and ``--json`` of every verb."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import rich_click as click
from cryodc_cli.options import LEADS, MUTE, QUIET

_WITHOUT_JSON = ("view", "relion-job")
"""One opens a window; the options of the other are those of other verbs, as RELION gives them."""


def add_voice(command: click.Command, verb: str) -> None:
    """Give a verb both options, once. Of a verb that has no ``--json`` of its own, what it returns is printed."""
    if any(option.name == "quiet" for option in command.params) or verb == "relion-job":
        return
    work = command.callback
    assert work is not None
    its_own = any(option.name == "as_json" for option in command.params)
    returned = not its_own and verb not in _WITHOUT_JSON

    @functools.wraps(work)
    def speak(*arguments: Any, quiet: bool, **options: Any) -> Any:
        as_json = options.pop("as_json", False) if returned else options.get("as_json", False)
        printed = as_json and (returned or options.get("dry_run", False))
        context = click.get_current_context(silent=True)
        assert context is not None
        context.meta[QUIET], context.meta[MUTE] = quiet, printed or (quiet and not as_json)
        made = work(*arguments, **options)
        if printed and LEADS:
            click.echo(json.dumps(made, indent=2, default=_plain))
        return made

    command.callback = speak
    if returned:
        command.params.append(click.Option(["--json", "as_json"], is_flag=True, help="Print what was made as JSON."))
    told = "Print nothing but errors" + ("." if verb in _WITHOUT_JSON else ", and what --json prints.")
    command.params.append(click.Option(["--quiet"], is_flag=True, help=told))


def _plain(value: object) -> Any:
    """What JSON has no word for."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value) if isinstance(value, Path) else value.tolist()  # type: ignore[attr-defined]
