"""Objects cut from pictures in the layout of the BOP challenge, as its ``lm_train`` (LineMod) has it.

One folder per scene holds ``scene_gt.json`` (objects of each picture and their poses), ``scene_gt_info.json`` (their
bounding boxes) and ``rgb/000000.png``: https://github.com/thodan/bop_toolkit/blob/master/docs/bop_datasets_format.md
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from PIL import Image

from cryodc.errors import InputError

EDGE = 64


@dataclass(frozen=True)
class Objects:
    """Objects cut out.

    Parameters
    ----------
    names
        ``scene/picture/place``, unique.
    images
        ``(n, 3, 64, 64)`` in [0, 1], red, green, blue.
    labels
        ``(n,)`` the object's number.
    rotations
        ``(n, 3, 3)`` model to camera, xyz as BOP has it.
    """

    names: tuple[str, ...]
    images: Float[NDArray[np.float32], "n 3 h w"]
    labels: Int[NDArray[np.int64], " n"]
    rotations: Float[NDArray[np.float64], "n 3 3"]


def read_objects(folder: Path) -> Objects:
    """Every visible object of every scene, in order.

    Parameters
    ----------
    folder
        Holds scenes: ``000001/``, ``000002/`` and so on.

    Raises
    ------
    InputError
        If there is no scene, a file is missing or says something else than the layout, or a box lies outside its
        picture.
    """
    scenes = sorted(path.parent for path in folder.glob("*/scene_gt.json"))
    if not scenes:
        raise InputError("no scene in the BOP layout", file=folder, expected="000001/scene_gt.json and so on")
    rows = [row for scene in scenes for row in _scene(scene)]
    if not rows:
        raise InputError("no visible object in any scene", file=folder)
    names, images, labels, rotations = zip(*rows, strict=True)
    return Objects(names, np.stack(images), np.array(labels, dtype=np.int64), np.stack(rotations))


def _scene(scene: Path) -> list[tuple[str, NDArray[np.float32], int, NDArray[np.float64]]]:
    truth, info = _read(scene / "scene_gt.json"), _read(scene / "scene_gt_info.json")
    rows = []
    for key in sorted(truth, key=int):
        if len(info.get(key, ())) != len(truth[key]):
            raise InputError(
                "not every object has a bounding box", file=scene / "scene_gt_info.json", found=f"image {key}"
            )
        picture = scene / "rgb" / f"{int(key):06d}.png"
        if not picture.exists():
            raise InputError("no such picture", file=picture, expected=f"image {key} of scene_gt.json")
        with Image.open(picture) as opened:
            whole = opened.convert("RGB")
        for place, (pose, box) in enumerate(zip(truth[key], info[key], strict=True)):
            x, y, width, height = box["bbox_visib"]
            # BOP writes −1 where nothing of the object is seen.
            if width <= 0 or height <= 0:
                continue
            rotation = np.array(pose["cam_R_m2c"], dtype=np.float64).reshape(3, 3)
            cut = _cut(whole, (x, y, width, height), picture)
            rows.append((f"{scene.name}/{int(key):06d}/{place}", cut, int(pose["obj_id"]), rotation))
    return rows


def _cut(picture: Image.Image, box: tuple[int, int, int, int], file: Path) -> NDArray[np.float32]:
    x, y, width, height = box
    if x < 0 or y < 0 or x + width > picture.width or y + height > picture.height:
        raise InputError(
            "a bounding box lies outside its picture",
            file=file,
            expected=f"within {picture.width} × {picture.height}",
            found=f"x, y, width, height {box}",
        )
    cut = picture.crop((x, y, x + width, y + height)).resize((EDGE, EDGE), Image.Resampling.BILINEAR)
    return np.asarray(cut, dtype=np.float32).transpose(2, 0, 1) / 255


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        raise InputError("a file of the BOP layout is missing", file=file)
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise InputError("this is not JSON", file=file, found=str(error)) from error
    if not isinstance(content, dict):
        raise InputError("this is not a table by image number", file=file, found=type(content).__name__)
    return content
