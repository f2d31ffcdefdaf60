"""The part of the report that shows what the model has learned: decoded afresh from the run's codes and model."""

from dataclasses import dataclass

from cryodc.figures import class_colour
from cryodc.generate import (
    Decoding,
    GenerateRequest,
    describe_axes,
    describe_shares,
    grid_picture,
    load_decoding,
    load_encoded,
    make_grid,
    make_traversal,
    particles_picture,
    traversal_picture,
)
from cryodc.report.embed import data_uri
from cryodc.runs import RunFolder, read_table

_REQUEST = GenerateRequest(n_rows=5, n_columns=5, n_steps=5, n_particles=4)
_LEARNED = 0.03


@dataclass(frozen=True)
class TraversalCard:
    """The traversal of one class: a picture, and a sentence for each axis."""

    number: int
    colour: str
    picture: str
    sentences: list[str]


@dataclass(frozen=True)
class DecodedSection:
    """What the page shows of the model and the particles; a picture that cannot be made is empty.

    Parameters
    ----------
    grid, particles
        Pictures.
    grid_verdict
        What the cells of the grid differ by.
    grid_notice, particles_notice
        Which particles are not shown, and why.
    clustered
        Whether the rows of the grid are of classes.
    nothing_learned
        Why there are no decoded volumes, of a network that has learned nothing.
    """

    grid: str
    grid_verdict: str
    grid_notice: str
    clustered: bool
    traversals: list[TraversalCard]
    particles: str
    particles_notice: str
    nothing_learned: str = ""


def decoded_section(run: RunFolder) -> DecodedSection:
    """Decode a transfer grid and a traversal of every class, and show particles slice by slice.

    Parameters
    ----------
    run
        Trained; clustered or not. With neither templates nor a checkpoint there are no decoded volumes.

    Raises
    ------
    InputError
        If a file of the run is damaged.
    """
    encoded = load_encoded(run)
    particles, particles_notice = particles_picture(encoded, _REQUEST.n_particles, _REQUEST.seed)
    shown = "" if particles is None else data_uri(particles)
    clustered = encoded.labels is not None
    if encoded.codes.template_pose is None and not (run.checkpoints / "last.pt").exists():
        return DecodedSection("", "", "", clustered, [], shown, particles_notice)
    unlearned = "" if encoded.codes.template_pose is not None else nothing_learned(run)
    if unlearned:
        return DecodedSection("", "", "", clustered, [], shown, particles_notice, unlearned)
    decoding = load_decoding(encoded)
    grid = make_grid(decoding, _REQUEST)
    picture, notice = grid_picture(encoded, grid, _REQUEST.view)
    cards = [_traversal_card(decoding, number) for number in range(1, encoded.n_classes + 1)]
    return DecodedSection(
        grid=data_uri(picture),
        grid_verdict=describe_shares(grid),
        grid_notice=notice,
        clustered=clustered,
        traversals=[card for card in cards if card is not None],
        particles=shown,
        particles_notice=particles_notice,
    )


def nothing_learned(run: RunFolder) -> str:
    """Why volumes that the network decodes say nothing; empty where its reconstructions have come nearer to particles.

    A decoder starts near zero, so what it learns is what its loss falls by. Below 3 % that is the mean grey value and
    the pattern of its own layers.
    """
    if not run.log.exists():
        return ""
    losses = read_table(run.log, ("epoch", "reconstruction"), "cryodc train --resume")["reconstruction"]
    first, last = float(losses.iloc[0]), float(losses.iloc[-1])
    if last < (1 - _LEARNED) * first:
        return ""
    epochs = f"{len(losses)} epoch{'' if len(losses) == 1 else 's'}"
    return (
        "The network has not learned to reconstruct particles: the term of its loss that says how far they are off "
        f"went from {first:.3f} to {last:.3f} in {epochs}. Volumes decoded by it say nothing of particles and are not "
        "shown. Train for more epochs, or with more particles."
    )


def _traversal_card(decoding: Decoding, number: int) -> TraversalCard | None:
    """None where the transformation codes of the class are all alike."""
    traversal = make_traversal(decoding, number, _REQUEST)
    if not traversal.axes:
        return None
    picture = data_uri(traversal_picture(decoding.encoded, traversal, number, _REQUEST.view))
    return TraversalCard(number, class_colour(number), picture, describe_axes(traversal))
