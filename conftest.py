"""What every test and doctest needs: array shapes checked, a fixed number of threads.

The import hook checks the shape and type of every annotated argument and result of ``cryodc``. It is set
here, above all test folders, because it must stand before the first ``import cryodc``.
"""

import beartype
import jaxtyping
import torch

# As type checkers do, take an int where a float is declared. The hook wants its checker by name.
beartype.numeric_tower = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))  # type: ignore[attr-defined]
jaxtyping.install_import_hook("cryodc", "beartype.numeric_tower")

# Sums depend on how they are split: the same result on every machine needs the same number of threads.
torch.set_num_threads(1)

# Modules of the viewer that are made of Qt: napari is not everywhere, and warns where it is imported.
collect_ignore = [f"cryodc/viewer/{name}.py" for name in ("dock", "framing", "scatter")]
# Modules that other programs import, where they are.
collect_ignore += ["cryodc/plugins/pipeliner.py", "cryodc/plugins/stw.py"]
