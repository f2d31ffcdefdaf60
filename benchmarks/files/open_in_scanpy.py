"""Open what `cryodc export --anndata` wrote in scanpy: neighbours, UMAP, plots, and the same file once more.

python benchmarks/files/open_in_scanpy.py codes.h5ad

It needs scanpy and nothing of cryodc, so it can run in an environment of its own.
"""

import argparse
import tempfile
from pathlib import Path

import anndata
import matplotlib as mpl
import numpy as np
import scanpy

mpl.use("Agg")


def main() -> None:
    """Print what was opened; an error where scanpy cannot use it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    table = scanpy.read_h5ad(parser.parse_args().file)
    n_particles = table.n_obs
    scanpy.pp.neighbors(table, n_neighbors=min(15, n_particles - 1), use_rep="X")
    scanpy.tl.umap(table)
    colours = [name for name in ("class", "confidence", "rlnMicrographName") if name in table.obs]
    for basis in ("pca", "umap", "spatial"):
        if f"X_{basis}" in table.obsm or basis in table.obsm:
            scanpy.pl.embedding(table, basis, color=colours, show=False)
    with tempfile.TemporaryDirectory() as folder:
        table.write_h5ad(Path(folder) / "again.h5ad")
        again = anndata.read_h5ad(Path(folder) / "again.h5ad")
    np.testing.assert_array_equal(again.X, table.X)
    assert list(again.obs.columns) == list(table.obs.columns)
    print(f"{n_particles} particles, {table.n_vars} numbers of each, {len(table.obs.columns)} columns: {table.obsm}")


if __name__ == "__main__":
    main()
