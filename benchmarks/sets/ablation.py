"""What each loss and view component of a preset is worth, and each difference between the published settings and ours.

python -m benchmarks.sets.ablation --set easy --data PATH --seeds 0 1 2 --out ablation/
python -m benchmarks.sets.ablation --set mnist --data PATH --preset digits --seeds 0 1 2 --out ablation/
python -m benchmarks.sets.ablation --set hard --budget-epochs 4 --network-codes --data PATH --seeds 3 --out ablation/
python -m benchmarks.sets.ablation --set easy --kind differences --data PATH --seeds 0 1 2 --out ablation/

Removals: one row per component, the preset without it. Differences: one row per setting, the default settings with that
one as published; and the preset ``paper`` itself. What has been measured is skipped. Epochs are no row:
--budget-epochs, or those of the preset, hold for all rows.
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.command import Overrides, positive, run
from benchmarks.images import mnist
from benchmarks.sets.composition import measure
from benchmarks.sets.recipes import SETS, common_parser
from cryodc.models import PRESETS, Preset, preset_config

_BUDGET = "optimisation.epochs"
_ANY_BOX = 32

_REMOVED: dict[str, Overrides] = {
    "content contrast": {"loss": {"content_weight": 0.0}},
    "transformation contrast": {"loss": {"transformation_weight": 0.0}},
    "reconstruction": {"loss": {"reconstruction_weight": 0.0}},
    "KL divergences": {"loss": {"kl_weight": 0.0, "transformation_kl_weight": None}},
    "centring of z": {"loss": {"centred_transformation": False}},
    "independence of z": {"loss": {"independence_weight": 0.0}},
    "exchanged contents": {"loss": {"exchange_contents": False}},
    "contrast of other views": {"loss": {"contrast_apart": False}},
    "joint layers": {"model": {"joint_units": 0}},
    "found content": {"loss": {"found_content": False}},
    "found poses": {"loss": {"found_poses": False}},
    "found pairs": {"loss": {"found_content": False, "found_poses": False, "found_averages": False}},
    "noise of decoded volumes": {"loss": {"decoded_noise": False}},
    "rotation": {"views": {"rotation": "none"}},
    "rotation of one view": {"views": {"rotate_both": False}},
    "shift": {"views": {"max_shift_voxels": 0.0}},
    "wedge on views": {"views": {"reimpose_weight": False}},
    "low-pass": {"views": {"low_pass_shells": None}},
    "mask": {"views": {"masked": False}},
    "stretch": {"views": {"stretch": 0.0}},
    "bend": {"views": {"elastic_voxels": 0.0}},
    "templates": {"templates": {"n_templates": 0}},
    "wedge correction of scores": {"templates": {"wedge_correction": False}},
    "views of encoding": {"optimisation": {"encoding_views": 1}},
    "averaged weights": {"optimisation": {"ema_decay": None}},
    "residual blocks": {"model": {"blocks_per_level": 1}},
    "hidden squares": {"views": {"cutout_share": 0.0}},
}
"""The settings that leave a component out."""


def removals(preset: Preset) -> dict[str, Overrides]:
    """Settings that take one component each from a preset, of those that it has; under ``whole`` none."""
    whole = preset_config(preset, _ANY_BOX)
    before = whole.model_dump()
    table: dict[str, Overrides] = {"whole": {}}
    for name, settings in _REMOVED.items():
        # Images have no wedge and no templates.
        if whole.model.dims == 2 and ("wedge" in name or "found" in name):
            continue
        if any(before[section][key] != value for section, values in settings.items() for key, value in values.items()):
            table[f"without {name}"] = settings
    return table


def differences() -> dict[str, Any]:
    """The published value of each setting in which the presets differ, as ``section.name``, but for the epochs."""
    default, paper = (preset_config(preset, _ANY_BOX).model_dump() for preset in ("default", "paper"))
    return {
        f"{section}.{name}": value
        for section, values in paper.items()
        for name, value in values.items()
        if value != default[section][name] and f"{section}.{name}" != _BUDGET
    }


def rows(kind: str, preset: Preset, epochs: int) -> dict[str, tuple[Preset, Overrides]]:
    """Preset and settings of each row by its name."""
    # Where views show everything, the box of the network would follow: it stays.
    box: Overrides = {} if preset_config(preset, _ANY_BOX).model.dims == 2 else {"model": {"box_size": _box(preset)}}
    budget: Overrides = {"optimisation": {"epochs": epochs}}
    if kind == "removals":
        return {name: (preset, _joined(budget, box, settings)) for name, settings in removals(preset).items()}
    table: dict[str, tuple[Preset, Overrides]] = {"whole": ("default", budget), "paper": ("paper", budget)}
    for setting, value in differences().items():
        section, name = setting.split(".")
        table[setting] = ("default", _joined(budget, box, {section: {name: value}}))
    return table


def network_alone(table: dict[str, tuple[Preset, Overrides]]) -> dict[str, tuple[Preset, Overrides]]:
    """The same rows, content codes being those of the network; without those that are about templates."""
    return {
        name: (preset, _joined(settings, _REMOVED["templates"]))
        for name, (preset, settings) in table.items()
        if "templates" not in settings and "found" not in name
    }


def _box(preset: Preset) -> int:
    return preset_config(preset, _ANY_BOX).model.box_size


def _joined(*parts: Overrides) -> Overrides:
    joined: Overrides = {}
    for part in parts:
        for section, values in part.items():
            joined.setdefault(section, {}).update(values)
    return joined


def main() -> None:
    """Measure all rows on one set."""
    parser = common_parser(__doc__, (*SETS, "mnist"))
    parser.add_argument("--kind", choices=("removals", "differences"), default="removals")
    parser.add_argument("--preset", choices=PRESETS, default="default", help="what is taken from; digits for mnist")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True, help="simulations and runs are made below it")
    parser.add_argument("--budget-epochs", type=positive, help="by default those of the preset")
    parser.add_argument("--rows", nargs="+", help="only these")
    parser.add_argument(
        "--network-alone", action="store_true", help="every row without templates, which do not depend on the network"
    )
    parser.add_argument(
        "--network-codes", action="store_true", help="every row with templates, judged by the network's own codes"
    )
    parser.add_argument("--device", default="auto")
    parser.set_defaults(model="dualcontrast")
    arguments = parser.parse_args()
    flat = arguments.set == "mnist"
    if flat != (preset_config(arguments.preset, _ANY_BOX).model.dims == 2):
        parser.error(f"--preset {arguments.preset} is not of {'images' if flat else 'volumes'}")
    if arguments.kind == "differences" and arguments.preset != "default":
        parser.error("--kind differences is between the presets default and paper, and takes no --preset")
    epochs = arguments.budget_epochs or preset_config(arguments.preset, _ANY_BOX).optimisation.epochs
    table = rows(arguments.kind, arguments.preset, epochs)
    prefix = f"ablation-e{epochs}"
    if arguments.network_alone:
        table, prefix = network_alone(table), f"{prefix}-network"
    if arguments.network_codes:
        prefix = f"{prefix}-beside-templates"
    unknown = sorted(set(arguments.rows or ()) - set(table))
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(table)}")
    for seed in arguments.seeds:
        for name in arguments.rows or table:
            preset, settings = table[name]
            method = f"{prefix}-{name.replace(' ', '-')}"
            one = argparse.Namespace(**{**vars(arguments), "seed": seed, "epochs": None})
            if flat:
                mnist.measure_digits(one, method, settings)
            else:
                measure(one, method, settings, preset, arguments.network_codes)


if __name__ == "__main__":
    run(main)
