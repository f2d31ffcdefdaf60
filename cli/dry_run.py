"""``--dry-run`` of every verb that computes for long or writes much."""

import functools
from typing import TYPE_CHECKING, Any

import rich_click as click
from cryodc_cli.options import console

if TYPE_CHECKING:
    from cryodc.dry_run import Forecast

_NAME = "dry_run"
_TOLD = ("writes", "reads", "bytes_read", "bytes_written", "memory_bytes")


def add_dry_run(command: click.Command) -> None:
    """Give a verb the option, once."""
    if any(option.name == _NAME for option in command.params):
        return
    work = command.callback
    assert work is not None

    @functools.wraps(work)
    def work_or_plan(*arguments: Any, dry_run: bool, **options: Any) -> Any:
        if not dry_run:
            return work(*arguments, **options)
        from cryodc.dry_run import Planned, planning

        try:
            with planning():
                work(*arguments, **options)
        except Planned as planned:
            _print(planned.plan)
            return {name: getattr(planned.plan, name) for name in _TOLD} | {"seconds": planned.plan.seconds()}
        return None

    command.callback = work_or_plan
    told = "Check everything, say what would be read and written, how long and how much memory it takes; write nothing."
    command.params.append(click.Option(["--dry-run", _NAME], is_flag=True, help=told))


def _print(plan: "Forecast") -> None:
    from cryodc.export import describe_bytes

    out = console()
    lines = []
    if plan.reads:
        lines.append(f"Would read {plan.reads}{_about(plan.bytes_read)}")
    lines.append(f"Would write {plan.writes}{_about(plan.bytes_written)}")
    lines.append(f"Time on this machine: about {duration(plan.seconds())}")
    lines.append(f"Memory: about {describe_bytes(int(plan.memory_bytes))}")
    lines.append("Nothing was written.")
    for line in lines:
        out.print(line, markup=False, soft_wrap=True)


def _about(n_bytes: float) -> str:
    from cryodc.export import describe_bytes

    return f", about {describe_bytes(int(n_bytes))}" if n_bytes else ""


def duration(seconds: float) -> str:
    """One significant digit: no more of it is known.

    Examples
    --------
    >>> [duration(seconds) for seconds in (0.2, 41, 700, 9000, 500000)]
    ['a second', '40 s', '10 min', '2 h', '6 days']
    """
    if seconds < 1:
        return "a second"
    units = ((1, "s", 100), (60, "min", 100), (3600, "h", 72), (86400, "days", float("inf")))
    unit, name = next((unit, name) for unit, name, most in units if seconds / unit < most)
    return f"{float(f'{seconds / unit:.1g}'):.0f} {name}"
