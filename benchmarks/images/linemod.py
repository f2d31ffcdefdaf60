"""Objects cut from pictures, seen from all sides: what each code tells of the object and of the side it is seen from.

python -m benchmarks.images.linemod --data PATH --model dualcontrast --seed 3 --out runs/

PATH holds scenes in the layout of the BOP challenge, as its ``lm_train`` does (``benchmarks/images/bop.py``). Crops of
64 × 64 in colour; a fifth is kept for the test. The transformation label is one of four bins of viewpoint: k-means of
the direction from the object to the camera. Settings are those of paper-linemod, or the model's own.
"""

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from benchmarks.command import run
from benchmarks.images.bop import Objects, read_objects
from benchmarks.images.labelled_images import LabelledImages, image_parser, measure, method_name
from benchmarks.measurements import find_result

_N_BINS = 4


def label_objects(objects: Objects) -> LabelledImages:
    """Crops with their object, 0-based in order of the objects' numbers, and bin of viewpoint."""
    content = np.unique(objects.labels, return_inverse=True)[1].astype(np.int64)
    bins = viewpoint_bins(objects.rotations)
    return LabelledImages(objects.images, content, bins, ("object", "viewpoint"))


def viewpoint_bins(rotations: Float[NDArray[np.float64], "n 3 3"]) -> Int[NDArray[np.int64], " n"]:
    """Bins of the direction from the object to the camera, in the frame of the object.

    A camera looks along its z axis, so with ``x_camera = R x_model + t`` that direction is minus the third row of R.
    Turning the camera about its own axis does not change it.
    """
    directions = -rotations[:, 2]
    n_bins = min(_N_BINS, len(np.unique(directions.round(6), axis=0)))
    return KMeans(n_bins, n_init=10, random_state=0).fit_predict(directions).astype(np.int64)


def main() -> None:
    """Measure one model for one seed."""
    arguments = image_parser(__doc__).parse_args()
    if find_result(arguments.results, "linemod", method_name(arguments), arguments.seed):
        return
    objects = label_objects(read_objects(arguments.data))
    measure(arguments, "linemod", method_name(arguments), objects, len(objects.images) // 5, "paper-linemod")


if __name__ == "__main__":
    run(main)
