"""Whether a window can be opened here, found out before Qt ends the program."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping

from cryodc.errors import InputError

_TRY = "from qtpy.QtWidgets import QApplication; QApplication([])"


def require_display() -> None:
    """Say what to do where napari is not installed or no window can be opened.

    Qt ends the whole program where it finds no display, so that it is tried in a process of its own first.

    Raises
    ------
    InputError
        If napari is not installed, or there is no display.
    """
    if ("napari" in sys.modules and sys.modules["napari"] is None) or importlib.util.find_spec("napari") is None:
        raise InputError("napari is not installed", remedy="in your clone of cryodc: pip install '.[view]'")
    if problem := _display_problem(os.environ):
        raise InputError(
            "no window can be opened here",
            expected="a display with X11 or Wayland",
            found=problem,
            remedy="look at the run in a browser instead: `cryodc report`; over ssh log in with `ssh -X`; or on a "
            "virtual display: xvfb-run -a env QT_QPA_PLATFORM=xcb cryodc view",
        )


def _display_problem(environment: Mapping[str, str]) -> str:
    """Why Qt would find no display, in words; empty if it finds one."""
    on_x11 = sys.platform.startswith("linux") and "QT_QPA_PLATFORM" not in environment
    if on_x11 and not (environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")):
        return "neither DISPLAY nor WAYLAND_DISPLAY is set"
    try:
        tried = subprocess.run(
            [sys.executable, "-c", _TRY], env=dict(environment), capture_output=True, text=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        return "Qt does not answer"
    if tried.returncode == 0:
        return ""
    said = [line for line in tried.stderr.splitlines() if line.strip()]
    return said[0].strip() if said else f"Qt ended with {tried.returncode}"
