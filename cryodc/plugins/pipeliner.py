"""The job ``cryodc.classify`` of CCP-EM's pipeliner and of Doppio, its window; imported by its entry point only.

The job is ``cryodc relion-job``: its folder is the same in both worlds.
"""

from pathlib import Path

from pipeliner.data_structure import NODE_PARTICLEGROUPMETADATA
from pipeliner.external_program_utils import ExternalProgram
from pipeliner.job_options import (
    BooleanJobOption,
    FileDescription,
    FloatJobOption,
    InputNodeJobOption,
    IntJobOption,
    StringJobOption,
)
from pipeliner.pipeliner_job import PipelinerCommand, PipelinerJob, Ref
from pipeliner.starfile_handler import StarFile


class ClassifyJob(PipelinerJob):  # type: ignore[misc]
    """Composition, conformation and averages from subtomograms."""

    PROCESS_NAME = "cryodc.classify"
    OUT_DIR = "Cryodc"
    CATEGORY_LABEL = "3D Classification"

    def __init__(self) -> None:
        super().__init__()
        self.jobinfo.display_name = "cryodc: which proteins are in subtomograms"
        self.jobinfo.short_desc = "Classify, align and average subtomograms without labels or poses"
        self.jobinfo.long_desc = (
            "Learns codes of every particle, clusters them, aligns and averages each class in two halves, and writes "
            "classes and poses back into the particles STAR."
        )
        self.jobinfo.programs = [ExternalProgram(command="cryodc")]
        self.jobinfo.references = [
            Ref(
                authors=["Uddin MR", "Xu M"],
                title=(
                    "DualContrast: Unsupervised Disentangling of Content and Transformations with Implicit "
                    "Parameterization"
                ),
                journal="arXiv",
                year="2024",
                doi="10.48550/arXiv.2405.16796",
            )
        ]
        self.joboptions["in_parts"] = InputNodeJobOption(
            label="Input subtomograms:",
            node_type=NODE_PARTICLEGROUPMETADATA,
            pattern=FileDescription("Particles STAR file", [".star"]),
            help_text="STAR of subtomograms, as RELION or WarpTools write them. 2D stacks: cryodc import first.",
            is_required=True,
        )
        for name, least_or_most in (("tilt_min", "Least"), ("tilt_max", "Largest")):
            self.joboptions[name] = FloatJobOption(
                label=f"{least_or_most} tilt angle (degrees):",
                default_value=None,
                hard_min=-90,
                hard_max=90,
                help_text="Where the STAR names no weights. Leave both empty where it does.",
            )
        self.joboptions["k"] = StringJobOption(
            label="Number of classes:",
            default_value="auto",
            help_text="auto: chosen, with a verdict on how sure it is.",
        )
        self.joboptions["classify"] = BooleanJobOption(
            label="Sort particles anew by alignment, also where the STAR has poses?",
            default_value=False,
            help_text="Every particle is aligned to every class; the clusters are where this starts.",
        )
        self.joboptions["ignore_poses"] = BooleanJobOption(
            label="Align from nothing?", default_value=False, help_text="Even where the STAR has poses."
        )
        self.joboptions["epochs"] = IntJobOption(
            label="Epochs of training:", default_value=None, hard_min=1, help_text="Empty: as cryodc train has it."
        )
        self.get_runtab_options(threads=True, addtl_args=True)

    def create_output_nodes(self) -> None:
        """The particles with their classes."""
        self.add_output_node("particles.star", NODE_PARTICLEGROUPMETADATA, ["relion", "cryodc"])

    def create_post_run_output_nodes(self) -> None:
        """The maps of as many classes as were found."""
        written = Path(self.output_dir) / "RELION_OUTPUT_NODES.star"
        if not written.is_file():
            return
        table = StarFile(str(written))
        names = table.column_as_list("output_nodes", "_rlnPipeLineNodeName")
        labels = table.column_as_list("output_nodes", "_rlnPipeLineNodeTypeLabel")
        for name, label in zip(names, labels, strict=True):
            kind, _, *keywords = label.split(".")
            if kind != NODE_PARTICLEGROUPMETADATA:
                self.add_output_node(str(Path(name).relative_to(self.output_dir)), kind, [*keywords, "cryodc"])

    def get_commands(self) -> list[PipelinerCommand]:
        """One command: ``cryodc relion-job``."""
        option = self.joboptions
        words = ["cryodc", "relion-job", "--in_parts", option["in_parts"].get_string(), "--o", self.output_dir]
        words += ["--j", option["nr_threads"].get_number()]
        # Of an option without a value, pipeliner gives no number.
        given = [option[name].get_number() for name in ("tilt_min", "tilt_max") if option[name].value is not None]
        # One alone is an error that relion-job tells.
        words += ["--tilt-range", *given] if given else []
        words += ["--k", option["k"].get_string() or "auto"]
        words += [f"--{name.replace('_', '-')}" for name in ("classify", "ignore_poses") if option[name].get_boolean()]
        if option["epochs"].value is not None:
            words += ["--epochs", option["epochs"].get_number()]
        return [PipelinerCommand([*words, *self.parse_additional_args()])]
