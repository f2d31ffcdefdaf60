"""Tables of what codes hold, for ``cryodc evaluate``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cryodc_cli.options import plain_table

if TYPE_CHECKING:
    from rich.table import Table

    from cryodc.evaluation import Accuracy, Disentanglement, LeakageTable, Probe


def leakage_table(leakage: "LeakageTable") -> "Table":
    """One row for each quantity: what either code tells of it, what shuffled it would, and what that means."""
    from rich.box import SIMPLE_HEAD

    table = plain_table(box=SIMPLE_HEAD, padding=0, title=f"What the codes of {leakage.n_measured} particles hold")
    for name in ("", "", "content", "chance", "verdict", "transf.", "chance", "verdict"):
        table.add_column(name, no_wrap=True)
    for row in leakage.rows:
        measure = row.transformation.measure.replace("R2", "R²")
        content = _cells(row.content, row.content_verdict)
        table.add_row(row.title, measure, *content, *_cells(row.transformation, row.transformation_verdict))
    return table


def leakage_notes(leakage: "LeakageTable") -> list[str]:
    """The verdict on the content code, how to read the table, and why what is missing is missing."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in leakage.rows:
        for name, probe in (("content", row.content), ("transformation", row.transformation)):
            if probe.reason:
                reasons.setdefault((row.title, probe.reason), []).append(name)
    notes = [f"{row.title}: {row.note}." for row in leakage.rows if row.note and not row.transformation.reason]
    missing = [f"{title} ({', '.join(codes)}): not computable: {reason}." for (title, reason), codes in reasons.items()]
    scale = "R²: 0 nothing, 1 all; AUC: 0.5 nothing, 1 all; chance: 95 % of shufflings stay below."
    return [leakage.summary, scale, *notes, *missing]


def disentanglement_table(rows: "Sequence[Disentanglement]") -> "Table":
    """D(factor | code) and SAP, each beside its value corrected for chance."""
    from rich.box import SIMPLE_HEAD

    table = plain_table(box=SIMPLE_HEAD, padding=0, title="Accuracy, and corrected for chance")
    for name in ("", "D(·|c)", "corrected", "D(·|z)", "corrected", "chance", "SAP"):
        table.add_column(name, no_wrap=True)
    for row in rows:
        if row.content is None or row.transformation is None:
            table.add_row(row.factor, "–", row.reason)
            continue
        chance, sap = f"{row.content.chance:.2f}", f"{row.sap:.2f}"
        table.add_row(row.factor, *_accuracy(row.content), *_accuracy(row.transformation), chance, sap)
    return table


def _cells(probe: "Probe", verdict: str) -> tuple[str, str, str]:
    if probe.reason:
        return "–", "–", "–"
    short = {"trace leak": "trace", "strong leak": "strong"}.get(verdict, verdict)
    return f"{probe.value:.2f}", f"{probe.shuffled_95:.2f}", short


def _accuracy(accuracy: "Accuracy") -> tuple[str, str]:
    low, high = accuracy.corrected_low, accuracy.corrected_high
    return f"{accuracy.value:.2f}", f"{accuracy.corrected:.2f} [{low:.2f}, {high:.2f}]"
