"""Files of a state: numbers, texts, tensors, and lists and dictionaries of these."""

import io
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryodc.io import atomic_path

_VERSION = 2


def plain(value: Any) -> Any:
    """Dataclasses and arrays as dictionaries and tensors, which a file keeps without naming code; all copied."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value, order="C"))
    if isinstance(value, np.generic):
        return value.item()
    # A view would be kept with all that it is a view of.
    return value.detach().cpu().clone(memory_format=torch.contiguous_format) if isinstance(value, Tensor) else value


def on_device(value: Any, device: torch.device) -> Any:
    """A plain value whose tensors lie on a device."""
    if isinstance(value, dict):
        return {key: on_device(entry, device) for key, entry in value.items()}
    if isinstance(value, list):
        return [on_device(entry, device) for entry in value]
    return value.to(device) if isinstance(value, Tensor) else value


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state, whole or not at all."""
    # torch.save hides a full disk behind a RuntimeError; a plain write raises OSError.
    buffer = io.BytesIO()
    torch.save({"version": _VERSION, **plain(state)}, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_state(path: Path) -> dict[str, Any] | None:
    """A state as :func:`save_state` wrote it; None where there is none, or it is damaged or of another version."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    # What a damaged archive raises is up to torch, pickle and zipfile.
    except Exception:
        return None
    return state if isinstance(state, dict) and state.pop("version", None) == _VERSION else None
