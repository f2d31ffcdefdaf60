"""What decodes the codes of a run: the averages of its templates' groups, or its network."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cryodc.device import choose_device
from cryodc.dry_run import Forecast
from cryodc.errors import InputError
from cryodc.generate.decode import AtBox, AxesOf, DecodingModel, code_axes
from cryodc.generate.encoded_run import EncodedRun
from cryodc.runs import load_config, require
from cryodc.templates import codes_of_templates, conformation_axes, load_template_decoder
from cryodc.training import load_model

WhoseCodes = Literal["templates", "network"]


@dataclass(frozen=True)
class Decoding:
    """What decodes the codes of a run, at the box of the particles it was trained on.

    Parameters
    ----------
    encoded
        The run, with the codes that ``model`` takes.
    model
        The templates' decoder, or the network.
    axes_of
        What traversals follow.
    codes
        Whose codes these are.
    """

    encoded: EncodedRun
    model: DecodingModel
    axes_of: AxesOf
    codes: WhoseCodes


def plan_of_volumes(folder: Path, decoding: Decoding, n_volumes: int) -> Forecast:
    """What decoding so many volumes would read, write and cost."""
    encoded = decoding.encoded
    box = (encoded.previews.particles.box_size,) * load_config(encoded.run)["model"]["dims"]
    told, n_bytes = f"codes of {len(encoded.codes)} particles and the model", 4.0 * n_volumes * math.prod(box)
    return Forecast(folder, told, 0, n_bytes, box, {"decoding": n_volumes}, 2 * n_volumes)


def load_decoding(encoded: EncodedRun, codes: WhoseCodes | None = None, device: str = "auto") -> Decoding:
    """The decoder of a run's codes: by default that of the templates, where the run has some.

    Raises
    ------
    InputError
        If there is no checkpoint, it is damaged, the run has no templates that were asked for, or there is no such
        device.
    """
    run, chosen = encoded.run, choose_device(device)
    described = load_config(run)
    box_size = int((described.get("pack") or described["dataset"])["box_size"])
    made_of_templates = encoded.codes.template_content is not None and encoded.codes.template_pose is not None
    decoder = load_template_decoder(run, chosen) if codes != "network" and made_of_templates else None
    if decoder is not None:
        there = replace(encoded, codes=codes_of_templates(encoded.codes))
        return Decoding(there, AtBox(decoder, box_size), conformation_axes, "templates")
    if codes == "templates":
        raise InputError(
            "this run has no templates to decode with",
            file=run.templates,
            expected="groups.npz, which `cryodc train` writes for volumes",
            remedy="take those of the network: --codes network",
        )
    if not encoded.codes.of_network:
        raise InputError(
            "this run has no codes of a network to decode",
            file=run.codes,
            expected="a network trained to its last epoch",
            found="codes of templates alone",
            remedy="train one beside them: cryodc train PARTICLES.STAR --out RUN --resume --epochs 4",
        )
    model, config = load_model(require(run.checkpoints / "last.pt", "cryodc train"), chosen)
    at_box = model if box_size == config.model.box_size else AtBox(model, box_size)
    return Decoding(encoded, at_box, code_axes, "network")
