"""What each difference between the published settings and the default ones is worth.

python -m benchmarks.ablation --set easy --data PATH --seeds 0 1 2 --out ablation/

One row per setting: the default settings with that one as published; and both presets themselves. Rows whose result
is there are skipped. Epochs are no row: --budget-epochs, or those of the default, hold for all rows.
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.composition import Overrides, measure
from benchmarks.recipes import common_parser, positive, run
from cryodc.config import preset_config

_BUDGET = "optimisation.epochs"
_ANY_BOX = 32


def differences() -> dict[str, Any]:
    """The published value of each setting in which the presets differ, as ``section.name``, but for the epochs."""
    default, paper = (preset_config(preset, _ANY_BOX).model_dump() for preset in ("default", "paper"))
    return {
        f"{section}.{name}": value
        for section, values in paper.items()
        for name, value in values.items()
        if value != default[section][name] and f"{section}.{name}" != _BUDGET
    }


def rows(epochs: int) -> dict[str, tuple[str, Overrides]]:
    """Preset and settings of each row by its name."""
    budget: dict[str, Any] = {"epochs": epochs}
    table: dict[str, tuple[str, Overrides]] = {
        "default": ("default", {"optimisation": budget}),
        "paper": ("paper", {"optimisation": budget}),
    }
    box_size = preset_config("default", _ANY_BOX).model.box_size
    for setting, value in differences().items():
        section, name = setting.split(".")
        # Where views show everything, the box of the network would follow: it has a row of its own.
        settings: Overrides = {"optimisation": dict(budget), "model": {"box_size": box_size}}
        settings.setdefault(section, {})[name] = value
        table[setting] = ("default", settings)
    return table


def main() -> None:
    """Measure all rows on one set."""
    parser = common_parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True, help="simulations and runs are made below it")
    parser.add_argument(
        "--budget-epochs", type=positive, default=preset_config("default", _ANY_BOX).optimisation.epochs
    )
    parser.add_argument("--rows", nargs="+", help="only these")
    parser.add_argument("--device", default="auto")
    parser.set_defaults(model="dualcontrast")
    arguments = parser.parse_args()
    table = rows(arguments.budget_epochs)
    unknown = sorted(set(arguments.rows or ()) - set(table))
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(table)}")
    for seed in arguments.seeds:
        for name in arguments.rows or table:
            preset, settings = table[name]
            one = argparse.Namespace(**{**vars(arguments), "seed": seed})
            measure(one, f"ablation-e{arguments.budget_epochs}-{name}", settings, preset)


if __name__ == "__main__":
    run(main)
