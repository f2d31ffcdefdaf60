"""Generate: what a trained model has learned, as volumes decoded from codes and as pictures of them."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryodc.clustering import k_medoids, medoids, spread_codes
from cryodc.dry_run import declare
from cryodc.errors import InputError
from cryodc.figures import PictureKind
from cryodc.generate.code_maps import MapKind, comparison_picture, maps_picture
from cryodc.generate.decode import TransferGrid, Traversal, transfer_grid, traverse
from cryodc.generate.decoders import Decoding, WhoseCodes, load_decoding, plan_of_volumes
from cryodc.generate.encoded_run import EncodedRun, load_encoded
from cryodc.generate.folder import class_folder, write_grid, write_traversal
from cryodc.generate.pictures import describe_axes, describe_shares, grid_picture, particles_picture, traversal_picture
from cryodc.io import atomic_path, new_folder, replace_folder, require_empty
from cryodc.runs import RunFolder, fingerprint_of_decoded, writing

GRID = "grid"
PARTICLES = "particles.png"
MAPS = "codes.png"


@dataclass(frozen=True)
class GenerateRequest:
    """What a user asks of ``cryodc generate``.

    Parameters
    ----------
    out
        Folder to write into; None for the run's own generated/.
    content_from, transformation_from
        Names of particles, or their rows as in ``1,3-5`` (from 1, in the order of the run's STAR). By default one
        medoid per class, or of ``n_rows`` groups where there are no classes; and ``n_columns`` particles spread over
        the codes.
    n_rows, n_columns
        Of the grid, where particles are chosen for it.
    classes
        Traverse these classes and write nothing else; empty for everything: grid, every class, particles.
    n_axes, n_steps
        Of a traversal; the number of steps is odd.
    n_particles
        How many particles are shown slice by slice.
    view
        How pictures show a volume.
    map_kind
        How codes become points.
    truth
        truth.csv of the particles: codes are coloured by it too.
    codes
        ``templates``, ``network``, or None for the first of these that the run has.
    seed
        Chooses particles.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    """

    out: Path | None = None
    content_from: tuple[str, ...] = ()
    transformation_from: tuple[str, ...] = ()
    n_rows: int = 6
    n_columns: int = 6
    classes: tuple[int, ...] = ()
    n_axes: int = 2
    n_steps: int = 7
    n_particles: int = 6
    view: PictureKind = "slices"
    map_kind: MapKind = "pca"
    truth: Path | None = None
    codes: WhoseCodes | None = None
    seed: int = 0
    device: str = "auto"


def make_grid(decoding: Decoding, request: GenerateRequest) -> TransferGrid:
    """Decode the transfer grid that a request asks for.

    Raises
    ------
    InputError
        If a particle is named that is not there.
    """
    encoded = decoding.encoded
    rows, columns = choose_rows(encoded, request), choose_columns(encoded, request)
    return transfer_grid(decoding.model, encoded.codes, rows, columns)


def make_traversal(decoding: Decoding, class_number: int, request: GenerateRequest) -> Traversal:
    """Decode the traversal of a class as a request asks for it.

    Raises
    ------
    InputError
        If there is no such class.
    """
    members, sizes = decoding.encoded.members(class_number), {"n_axes": request.n_axes, "n_steps": request.n_steps}
    return traverse(decoding.model, members, axes_of=decoding.axes_of, **sizes)


def choose_rows(encoded: EncodedRun, request: GenerateRequest) -> list[int]:
    """Particles that give the content: those named, else a medoid per class, else medoids of groups."""
    if request.content_from:
        return find_particles(request.content_from, encoded.codes.names)
    if encoded.labels is not None:
        return medoids(encoded.codes.content_points, encoded.labels).tolist()
    n_groups = min(request.n_rows, len(encoded.codes))
    return k_medoids(encoded.codes.content_points, n_groups, seed=request.seed)[0].tolist()


def choose_columns(encoded: EncodedRun, request: GenerateRequest) -> list[int]:
    """Particles that give the transformation: those named, else ones spread over the codes."""
    if request.transformation_from:
        return find_particles(request.transformation_from, encoded.codes.names)
    return spread_codes(encoded.codes.transformation, request.n_columns, seed=request.seed).tolist()


def find_particles(wanted: Sequence[str], names: Sequence[str]) -> list[int]:
    """0-based rows of particles given by name, or by row from 1 as in ``1,3-5``; each once, in the order given.

    Raises
    ------
    InputError
        If there is no such particle.

    Examples
    --------
    >>> find_particles(["c.mrc", "1-2"], ["a.mrc", "b.mrc", "c.mrc"])
    [2, 0, 1]
    """
    place = {name: row for row, name in enumerate(names)}
    rows: dict[int, None] = {}
    for text in wanted:
        found = [place[text]] if text in place else _parse_rows(text, len(names))
        if found is None:
            raise InputError(
                "there is no such particle",
                expected=f"a name as in the STAR, {names[0]} for example, or rows from 1 to {len(names)} as in 1,3-5",
                found=text,
            )
        rows |= dict.fromkeys(found)
    return list(rows)


def generate_run(
    run: RunFolder, request: GenerateRequest | None = None, progress: Callable[[str], None] | None = None
) -> Path:
    """Decode and write what is asked for: grid/, classKKK/ of every class or of those asked for, particles.png.

    Parameters
    ----------
    run
        Trained; clustered or not.
    request
        What is wanted.
    progress
        Called with a line about each result.

    Returns
    -------
    The folder written into. In the run's generated/ everything, or each class asked for, takes the place of what an
    earlier call wrote, in one step; in another folder nothing is overwritten.

    Raises
    ------
    InputError
        If the run has no codes or model, a class or particle is not there, something to be written into another folder
        is there already, or another process writes into the run.
    """
    request, tell = request or GenerateRequest(), progress or (lambda _: None)
    if request.out is not None:
        return _generate(run, request.out, request, tell)
    with writing(run, "generate"):
        return _generate(run, run.generated, request, tell)


def compare_runs(runs: Sequence[RunFolder], request: GenerateRequest | None = None) -> Path:
    """Draw the codes of several runs side by side: comparison.png of the first run, or in ``out``.

    Raises
    ------
    InputError
        If a run has no codes, the truth does not name its particles, the picture is in ``out`` already, or another
        process writes into the first run.
    """
    request = request or GenerateRequest()
    path = runs[0].comparison if request.out is None else request.out / runs[0].comparison.name
    with writing(runs[0], "generate") if request.out is None else nullcontext():
        if request.out is not None:
            refuse_existing(path)
        encoded = [load_encoded(run) for run in runs]
        write_picture(path, comparison_picture(encoded, request.map_kind, truth=request.truth, seed=request.seed))
    return path


def write_picture(path: Path, png: bytes) -> None:
    """Write a PNG atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(png)


def refuse_existing(path: Path) -> None:
    """Refuse to write over a file.

    Raises
    ------
    InputError
        If it is there.
    """
    if path.exists():
        raise InputError("refusing to overwrite", file=path, remedy="choose another --out, or remove this file")


def _generate(run: RunFolder, folder: Path, request: GenerateRequest, tell: Callable[[str], None]) -> Path:
    encoded = load_encoded(run)
    classes = request.classes or tuple(range(1, encoded.n_classes + 1))
    sizes = {number: len(encoded.members(number)) for number in classes}
    if not request.classes:
        choose_rows(encoded, request)
        choose_columns(encoded, request)
    places = [class_folder(folder, number) for number in sizes] if request.classes else [folder]
    begin = replace_folder if request.out is None else new_folder
    for place in places if begin is new_folder else []:
        require_empty(place)
    decoding = load_decoding(encoded, request.codes, request.device)
    described: dict[str, Any] = {"view": request.view, "seed": request.seed, "decoded_codes": decoding.codes}
    described["made_of"] = fingerprint_of_decoded(encoded.codes, encoded.labels)
    n_volumes = 0 if request.classes else request.n_rows * request.n_columns
    declare(plan_of_volumes(folder, decoding, n_volumes + len(classes) * request.n_axes * request.n_steps))
    if request.classes:
        for (number, size), place in zip(sizes.items(), places, strict=True):
            with begin(place) as here:
                _generate_traversal(here, decoding, number, request, {**described, "n_particles": size}, tell)
        return folder
    with begin(folder) as here:
        write_picture(here / MAPS, maps_picture(encoded, request.map_kind, truth=request.truth, seed=request.seed))
        _generate_grid(here / GRID, decoding, request, described, tell)
        _generate_particles(here, encoded, request, tell)
        for number, size in sizes.items():
            place = class_folder(here, number)
            _generate_traversal(place, decoding, number, request, {**described, "n_particles": size}, tell)
    return folder


def _generate_grid(
    folder: Path, decoding: Decoding, request: GenerateRequest, described: dict[str, Any], tell: Callable[[str], None]
) -> None:
    encoded, grid = decoding.encoded, make_grid(decoding, request)
    numbers = [encoded.class_number(row) for row in grid.rows]
    write_grid(folder, grid, encoded.codes, numbers, encoded.spacing_angstrom, described)
    picture, notice = grid_picture(encoded, grid, request.view)
    write_picture(folder / "grid.png", picture)
    tell(f"grid, {len(grid.rows)} × {len(grid.columns)}: {describe_shares(grid)}")
    if notice:
        tell(notice)


def _generate_particles(
    folder: Path, encoded: EncodedRun, request: GenerateRequest, tell: Callable[[str], None]
) -> None:
    picture, notice = particles_picture(encoded, request.n_particles, request.seed)
    if picture is not None:
        write_picture(folder / PARTICLES, picture)
    if notice:
        tell(notice)


def _generate_traversal(
    folder: Path,
    decoding: Decoding,
    number: int,
    request: GenerateRequest,
    described: dict[str, Any],
    tell: Callable[[str], None],
) -> None:
    encoded, traversal = decoding.encoded, make_traversal(decoding, number, request)
    write_traversal(folder, traversal, number, encoded.spacing_angstrom, {**described, "n_steps": request.n_steps})
    if not traversal.axes:
        tell(f"class {number}: all transformation codes are alike, there is nothing to traverse")
        return
    write_picture(folder / "traversal.png", traversal_picture(encoded, traversal, number, request.view))
    for line in describe_axes(traversal):
        tell(f"class {number}, {line}")


def _parse_rows(text: str, n_rows: int) -> list[int] | None:
    """0-based rows of ``1,3-5``; None where that is no such list, or beyond the particles."""
    rows: list[int] = []
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        bounds = [first, last] if dash else [first, first]
        if not all(bound.isascii() and bound.isdigit() for bound in bounds):
            return None
        if not 1 <= int(bounds[0]) <= int(bounds[1]) <= n_rows:
            return None
        rows += range(int(bounds[0]) - 1, int(bounds[1]))
    return rows
