"""What every test and doctest needs: array shapes checked, a fixed number of threads.

The import hook checks the shape and type of every annotated argument and result of ``cryodc``. It is set
here, above all test folders, because it must stand before the first ``import cryodc``.
"""

import importlib.util
import pkgutil

import beartype
import jaxtyping
import torch

# As type checkers do, take an int where a float is declared. The hook wants its checker by name.
beartype.numeric_tower = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))  # type: ignore[attr-defined]
# The room of STAR files has no arrays. Its functions are called for every line: checked, they take most of the time.
_ROOMS = importlib.util.find_spec("cryodc").submodule_search_locations  # type: ignore[union-attr]
_CHECKED = [f"cryodc.{room.name}" for room in pkgutil.iter_modules(_ROOMS) if room.name != "star"]
jaxtyping.install_import_hook(_CHECKED, "beartype.numeric_tower")

# Sums depend on how they are split: the same result on every machine needs the same number of threads.
torch.set_num_threads(1)

# Modules of the viewer that are made of Qt: napari is not everywhere, and warns where it is imported.
collect_ignore = [f"cryodc/viewer/{name}.py" for name in ("dock", "framing", "scatter")]
# Modules that other programs import, where they are.
collect_ignore += ["cryodc/plugins/pipeliner.py", "cryodc/plugins/stw.py"]
