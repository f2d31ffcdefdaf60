"""What a verb has done before it was stopped, kept so that the same command goes on."""

from cryodc.unfinished.state import load_state, on_device, plain, save_state
from cryodc.unfinished.steps import DoneSteps, Sequence, keep_command, key_of, stamp, stopped_command, typed_command

__all__ = [
    "DoneSteps",
    "Sequence",
    "keep_command",
    "key_of",
    "load_state",
    "on_device",
    "plain",
    "save_state",
    "stamp",
    "stopped_command",
    "typed_command",
]
