"""From a STAR file to a run folder with a model and codes."""

from cryodc.training.checkpoint import load_model, start_state
from cryodc.training.description import describe_run
from cryodc.training.encode import encode_particles
from cryodc.training.loop import Listener, train, train_epoch
from cryodc.training.new import Encoded, EncodeRequest, ReadyAverage, encode_new, poses_on_averages
from cryodc.training.request import TrainRequest
from cryodc.training.resume import next_run_folder
from cryodc.training.settings import checked_config, read_overrides
from cryodc.training.workflow import Prepared, prepare_run, train_run

__all__ = [
    "EncodeRequest",
    "Encoded",
    "Listener",
    "Prepared",
    "ReadyAverage",
    "TrainRequest",
    "checked_config",
    "describe_run",
    "encode_new",
    "encode_particles",
    "load_model",
    "next_run_folder",
    "poses_on_averages",
    "prepare_run",
    "read_overrides",
    "start_state",
    "train",
    "train_epoch",
    "train_run",
]
