"""``cryodc evaluate``."""

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from cryodc_cli.options import console, plain_table, resolve_run, run_argument

if TYPE_CHECKING:
    from rich.table import Table

    from cryodc.evaluation import Evaluation, LeakageTable


@click.command()
@run_argument
@click.option(
    "--truth",
    type=click.Path(path_type=Path, dir_okay=False),
    help="truth.csv, as cryodc simulate writes it.  [default: none, only what needs no truth]",
)
@click.option(
    "--symmetry",
    "symmetries",
    multiple=True,
    metavar="PROTEIN:GROUP",
    help="Point group that poses of a protein are judged by, for example 3j9i:D7; of a class, 1:D7, where there is no "
    "truth.  [default: the truth's, or C1]",
)
@click.option(
    "--map",
    "maps",
    multiple=True,
    metavar="PROTEIN:FILE",
    help="The true map of a protein.  [default: maps/PROTEIN.mrc beside the truth]",
)
@click.option("--json", "as_json", is_flag=True, help="Print numbers as JSON instead of tables.")
def evaluate(
    run: Path | None, truth: Path | None, symmetries: tuple[str, ...], maps: tuple[str, ...], as_json: bool
) -> None:
    """Say what the codes of a run hold beside identity, and compare the run with a known truth.

    Without a truth: the leakage table. Can pose, wedge, tomogram, defocus be told from the content code, and
    identity from the transformation code, better than by chance? Kept as leakage.json for the report.

    With a truth, matched by particle name: clusters, final classes, poses (modulo symmetry and one rotation and shift
    per class), the averages against the true maps (FSC at 0.5), disentanglement, and the leakage table with true poses.

    Example: cryodc evaluate run/

    Example: cryodc evaluate run/ --truth sim/truth.csv --json
    """
    import json

    folder = resolve_run(run)
    groups = _pairs(symmetries, "--symmetry")
    files = {name: Path(file) for name, file in _pairs(maps, "--map").items()}
    out = console()
    if truth is None:
        if files:
            raise click.UsageError("--map needs --truth")
        from cryodc.evaluation import run_leakage

        leakage = run_leakage(folder, _by_class(groups) or None)
        if as_json:
            out.print(json.dumps({"leakage_without_truth": leakage.to_json()}, indent=2), markup=False, soft_wrap=True)
        else:
            _print_leakage(leakage)
        return
    from cryodc.evaluation import evaluate_run

    result = evaluate_run(folder, truth, symmetries=groups, maps=files)
    if as_json:
        out.print(json.dumps(result.to_json(), indent=2), markup=False, soft_wrap=True)
        return
    out.print(composition_table(result))
    if result.classes:
        out.print(class_table(result))
    else:
        out.print("No averages yet: run `cryodc average` first for poses and maps.", markup=False)
    if result.leakage is not None:
        from cryodc_cli.take_away.leakage import disentanglement_table

        out.print(disentanglement_table(result.disentanglement))
        _print_leakage(result.leakage)


def _print_leakage(leakage: "LeakageTable") -> None:
    from cryodc_cli.take_away.leakage import leakage_notes, leakage_table

    console().print(leakage_table(leakage))
    for note in leakage_notes(leakage):
        console().print(note, markup=False, soft_wrap=True)


def composition_table(result: "Evaluation") -> "Table":
    """Clusters and final classes against the true proteins."""
    from rich.box import SIMPLE_HEAD

    columns = {"clusters": result.clusters, "final classes": result.final_classes}
    shown = {name: scores for name, scores in columns.items() if scores is not None}
    table = plain_table("", *shown, box=SIMPLE_HEAD)
    table.add_row("classes found / true", *(f"{scores.n_found} / {scores.n_true}" for scores in shown.values()))
    for label, attribute in (
        ("ARI", "ari"),
        ("AMI", "ami"),
        ("V measure", "v_measure"),
        ("homogeneity", "homogeneity"),
        ("completeness", "completeness"),
        ("accuracy", "accuracy"),
    ):
        table.add_row(label, *(f"{getattr(scores, attribute):.3f}" for scores in shown.values()))
    return table


def class_table(result: "Evaluation") -> "Table":
    """One row for each final class."""
    from rich.box import SIMPLE_HEAD

    table = plain_table(box=SIMPLE_HEAD, padding=0)
    for name in ("class", "protein", "particles", "pose error", "FSC 0.5 to truth", "half maps", "aligned"):
        table.add_column(name, no_wrap=True)
    for row in result.classes:
        poses, agreement, half = row.poses, row.agreement, row.half_map_resolution_angstrom
        pose, fsc = "–", "–"
        if poses is not None:
            pose = f"{poses.median_degrees:.1f}° {poses.median_shift_angstrom:.1f} Å ({row.symmetry})"
        if agreement is not None:
            fsc = f"{agreement.resolution_angstrom:.0f} Å ({agreement.fraction_of_nyquist:.0%} Nyq.)"
        table.add_row(
            str(row.number),
            f"{row.protein} {row.purity:.0%}",
            str(row.n_particles),
            pose,
            fsc,
            "–" if half is None else f"{half:.0f} Å",
            {True: "yes", False: "no", None: "–"}[row.aligned],
        )
    return table


def _pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, colon, value = text.partition(":")
        if not (name and colon and value):
            raise click.BadParameter(f"expected PROTEIN:VALUE, found {text!r}", param_hint=option)
        pairs[name] = value
    return pairs


def _by_class(groups: dict[str, str]) -> dict[int, str]:
    named = [name for name in groups if not name.isdigit()]
    if named:
        raise click.BadParameter(
            f"without --truth symmetries are given by class, as 1:D7; found {named[0]!r}", param_hint="--symmetry"
        )
    return {int(name): group for name, group in groups.items()}
