"""CCP-EM's pipeliner finds the job, makes its command, runs it in a project, and knows afterwards what it made.

The tests with pipeliner itself run where CRYODC_PIPELINER names a Python that has ccpem-pipeliner.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.plugins.conftest import ROOT, Answer, python_with

FOUND = """
import json, sys
from pipeliner.job_factory import get_job_types, new_job_of_type
listed = [job for job in get_job_types("cryodc")]
job = new_job_of_type("cryodc.classify")
job.output_dir = "Cryodc/job002/"
job.joboptions["in_parts"].value = "particles.star"
job.joboptions["tilt_min"].value, job.joboptions["tilt_max"].value = -60, 60
job.joboptions["k"].value = "3"
job.joboptions["classify"].value = True
job.joboptions["other_args"].value = "--symmetry 2:D7"
job.create_output_nodes()
print(json.dumps({
    "listed": [(one.PROCESS_NAME, one.jobinfo.is_available) for one in listed],
    "command": [str(word) for word in job.get_commands()[0].cmd],
    "nodes": [(node.name, node.type) for node in job.output_nodes],
    "torch": "torch" in sys.modules,
}))
"""

RUN = """
import json
from pipeliner.api.manage_project import PipelinerProject
from pipeliner.project_graph import ProjectGraph
project = PipelinerProject(make_new_project=True)
job = project.run_job({
    "_rlnJobTypeLabel": "cryodc.classify", "in_parts": "particles.star", "k": "2", "epochs": 1,
    "other_args": "--config small.yaml",
})
status = project.wait_for_job_to_finish(job)
with ProjectGraph(read_only=False) as graph:
    graph.check_process_completion()
print(json.dumps({"folder": job.output_dir, "status": str(status)}))
"""


@pytest.fixture
def python() -> str:
    return python_with("ccpem-pipeliner", "CRYODC_PIPELINER")


def test_pipeliner_lists_the_job_without_importing_torch_and_makes_its_command(
    python: str, ask_python: Answer, tmp_path: Path
) -> None:
    found = ask_python(python, FOUND, tmp_path)
    assert found["listed"] == [["cryodc.classify", True]]
    command = "relion-job --in_parts particles.star --o Cryodc/job002/ --j 1 --tilt-range -60.0 60.0 --k 3 --classify"
    assert found["command"] == ["cryodc", *command.split(), "--symmetry", "2:D7"]
    assert found["nodes"] == [["Cryodc/job002/particles.star", "ParticleGroupMetadata.star.relion.cryodc"]]
    assert not found["torch"]


def test_a_job_of_pipeliner_ends_well_and_its_maps_are_nodes(
    python: str, ask_python: Answer, small_run: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "small.yaml").write_text("model: {width: 8, max_channels: 16}\noptimisation: {batch_size: 8}\n")
    (project / "particles.star").write_text(
        (small_run.parent / "sim/particles.star")
        .read_text()
        .replace("subtomograms/", f"{small_run.parent}/sim/subtomograms/")
        .replace("weights/", f"{small_run.parent}/sim/weights/")
    )
    told = ask_python(python, RUN, project)
    job = project / told["folder"]
    assert told["status"] == "Succeeded", (job / "run.err").read_text()
    pipeline = (project / "default_pipeline.star").read_text()
    assert f"{told['folder']}particles.star" in pipeline
    assert f"{told['folder']}run/averages/class001_half1.mrc" in pipeline
    assert "DensityMap.mrc.halfmap.cryodc" in pipeline


def test_the_entry_point_names_a_module_that_nothing_else_imports() -> None:
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["ccpem_pipeliner.jobs"]
    assert entries == {"cryodc.classify": "cryodc.plugins.pipeliner:ClassifyJob"}
    text = (ROOT / "cryodc/plugins/pipeliner.py").read_text()
    assert 'PROCESS_NAME = "cryodc.classify"' in text
    assert "class ClassifyJob(PipelinerJob)" in text
    probe = "import cryodc.plugins, sys; sys.exit('torch' in sys.modules or 'pipeliner' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], timeout=100, check=False).returncode == 0
