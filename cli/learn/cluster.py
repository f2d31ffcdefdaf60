"""``cryodc cluster``."""

from pathlib import Path

import rich_click as click
from cryodc_cli.options import console, plain_table, print_next, resolve_run, run_argument, seed_option


class ClusterCount(click.ParamType[int | None]):
    """A number of clusters, or ``auto``."""

    name = "K|auto"

    def convert(self, value: int | str | None, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """``auto`` → None."""
        if value is None or value == "auto":
            return None
        try:
            return int(value)
        except ValueError:
            self.fail(f"expected a number or auto, found {value!r}", param, ctx)


@click.command()
@run_argument
@click.option("-k", "n_clusters", type=ClusterCount(), default="auto", show_default=True, help="How many.")
@seed_option
@click.option("--json", "as_json", is_flag=True, help="Print summary.json instead of a table.")
def cluster(run: Path | None, n_clusters: int | None, seed: int, as_json: bool) -> None:
    """Cluster the content codes of a run: which proteins are there.

    Writes clusters/: clusters.star (your STAR with rlnClassNumber set), one STAR per class, and summary.json.
    With -k auto the number of clusters is chosen, and the verdict says how sure it is.

    Example: cryodc cluster run/ -k 4
    """
    from cryodc_cli.progress import lines

    from cryodc.clustering import cluster_run
    from cryodc.runs import load_config

    folder = resolve_run(run, writes=True)
    with lines():
        clusters = cluster_run(folder, n_clusters, seed=seed)
    out = console()
    if as_json:
        out.print((folder.clusters / "summary.json").read_text(encoding="utf-8"), markup=False, soft_wrap=True)
        return
    table = plain_table("class", "particles", "share", "mean confidence")
    for label, size in enumerate(clusters.sizes):
        confidence = clusters.mean_confidence(label)
        told = "–" if confidence is None else f"{confidence:.2f}"
        table.add_row(str(label + 1), str(size), f"{size / len(clusters.names):.1%}", told)
    out.print(table)
    out.print(f"Verdict: {clusters.verdict}", markup=False)
    if n_clusters is not None and 10 * n_clusters > len(clusters.names):
        few = f"-k {n_clusters} leaves fewer than ten particles a class: {len(clusters.names)} in all"
        out.print(f"warning: {few}", markup=False, style="yellow")
    out.print(f"Wrote {folder.clusters / 'clusters.star'}", markup=False)
    # Images are decoded and reported; there is no alignment of them.
    following = "generate" if load_config(folder)["model"]["dims"] == 2 else "average"
    print_next(following, folder.path)
