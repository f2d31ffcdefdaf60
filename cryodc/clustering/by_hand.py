"""Classes made by hand: particles chosen on the codes become a class of their own."""

from dataclasses import replace

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from cryodc.clustering.cluster import write_classes
from cryodc.errors import InputError
from cryodc.runs import Clusters, RunFolder, current_classes, fingerprint_of_codes, writing


def separate_class(run: RunFolder, rows: Int[NDArray[np.int64], " k"]) -> Clusters:
    """Make a class of these particles and write clusters/ anew; what was made of the earlier classes is then stale.

    The new class takes the next free number, so that the others keep theirs and their colours. Only where it takes
    every particle of a class do later numbers move down. Particles that `cryodc average --classify` left unassigned
    become a class too, the last, because every particle has a cluster.

    Parameters
    ----------
    run
        A clustered run.
    rows
        Of the particles, in the order of the run's STAR.

    Raises
    ------
    InputError
        If no particle is chosen, or these already are one whole class; the run is not clustered; or another process
        writes into it.
    """
    with writing(run, "cluster"):
        before = current_classes(run)
        rows = np.unique(rows)
        if len(rows) == 0:
            raise InputError("no particle is chosen", remedy="draw a line round some codes first")
        of_rows = np.unique(before.labels[rows])
        if len(of_rows) == 1 and of_rows[0] >= 0 and int((before.labels == of_rows[0]).sum()) == len(rows):
            raise InputError(
                "these particles are already a class of their own",
                found=f"all {len(rows)} particles of class {of_rows[0] + 1}",
                remedy="choose some of them, or particles of several classes",
            )
        labels = np.where(before.labels < 0, before.n_clusters + 1, before.labels)
        labels[rows] = before.n_clusters
        kept, labels = np.unique(labels, return_inverse=True)
        number = int(np.searchsorted(kept, before.n_clusters)) + 1
        confidence = before.confidence.copy()
        confidence[rows] = 1.0
        verdict = f"{len(kept)} classes: class {number} of {len(rows)} particles was chosen by hand"
        classes = replace(before, labels=labels, confidence=confidence, trials=(), verdict=verdict)
        write_classes(run, classes, fingerprint_of_codes(run), requested="by hand", seed=0)
    return classes


def split_class(run: RunFolder, rows: Int[NDArray[np.int64], " k"]) -> Clusters:
    """Split the class that most of these particles are of: those of it that are among them become a new class.

    Parameters
    ----------
    run
        A clustered run.
    rows
        Of the particles; those of other classes stay where they are.

    Raises
    ------
    InputError
        As :func:`separate_class`; or if none of them has a class.
    """
    labels = current_classes(run).labels[rows]
    of_classes = labels[labels >= 0]
    if len(of_classes) == 0:
        raise InputError("none of these particles has a class", remedy="draw a line through a class")
    return separate_class(run, rows[labels == np.bincount(of_classes).argmax()])
