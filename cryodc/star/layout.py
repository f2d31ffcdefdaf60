"""Which program wrote a STAR, which of its blocks holds the particles, and why it cannot be used where it cannot."""

import shlex
from pathlib import Path

from cryodc.errors import InputError
from cryodc.io import number_of
from cryodc.star.blocks import StarBlock
from cryodc.star.document import StarDocument


def describe_layout(document: StarDocument) -> str:
    """Name the program generation whose layout this is, from its blocks and labels.

    RELION 4 adds the tilt series' pixel size to the optics of 3.1; 5 adds ``data_general`` and coordinates
    centred in Å; WarpTools writes RELION 5 blocks for 2D stacks and one block for 3D volumes.
    """
    general, optics = document.find("general"), document.find("optics")
    labels = {label for block in document.blocks for label in block.labels}
    if general is not None and "rlnTomoSubTomosAre2DStacks" in general:
        kind = "2D stacks" if _are_2d_stacks(general) else "3D subtomograms"
        centred = "rlnCenteredCoordinateXAngst" in labels
        return f"RELION 5, {kind}" if centred or kind[0] == "3" else f"WarpTools --2d or RELION 5, {kind}"
    if optics is not None:
        if "rlnCenteredCoordinateXAngst" in labels:
            return "RELION 5"
        return "RELION 4" if "rlnTomoTiltSeriesPixelSize" in optics else "RELION 3.1"
    return "RELION 3.0, Warp or WarpTools --3d"


def particle_block(document: StarDocument) -> StarBlock:
    """Find the block of subtomograms.

    Raises
    ------
    InputError
        If there is none, several could be it, or its images are 2D: with the reason and the remedy.
    """
    block = find_particle_block(document)
    _refuse_2d(document, block)
    return block


def find_particle_block(document: StarDocument) -> StarBlock:
    """Find the block of particles, whatever their images are.

    Raises
    ------
    InputError
        If there is none, several could be it, or its rows are the tilt images of particles.
    """
    block = image_block(document)
    if _tilt_image_groups(block):
        raise _tilt_images(document, block)
    return block


def image_block(document: StarDocument) -> StarBlock:
    """Find the block that names images, whatever its rows are.

    Raises
    ------
    InputError
        If there is none, or several could be it.
    """
    candidates = [block for block in document.blocks if block.is_loop and "rlnImageName" in block]
    named = [block for block in candidates if block.name == "particles"]
    chosen = named or candidates
    if not chosen:
        raise _no_particles(document)
    if len(chosen) > 1:
        raise InputError(
            "several blocks could be the particles",
            file=document.source,
            row=chosen[1].header_line + 1,
            expected="one block with rlnImageName, or one named data_particles",
            found=", ".join(f"data_{block.name} (line {block.header_line + 1})" for block in chosen),
            remedy="keep one of them, or name it data_particles",
        )
    block = chosen[0]
    if not block.n_rows:
        raise InputError(
            "the STAR holds no particles",
            file=document.source,
            row=block.header_line + 1,
            expected=f"rows in data_{block.name}",
            found="none",
        )
    return block


def holds_image_series(document: StarDocument) -> bool:
    """Whether the rows are the tilt images of particles: the series of 2D images that Warp and M write.

    Raises
    ------
    InputError
        If there is no block of images, or several could be it.
    """
    return _tilt_image_groups(image_block(document)) > 0


def holds_tilt_stacks(document: StarDocument) -> bool:
    """Whether the particles are stacks of 2D tilt images: `_rlnTomoSubTomosAre2DStacks 1`."""
    general = document.find("general")
    return general is not None and "rlnTomoSubTomosAre2DStacks" in general and _are_2d_stacks(general)


def import_command(star: Path) -> str:
    """Give the command that makes 3D subtomograms from the 2D stacks of a STAR."""
    return f"cryodc import {shlex.quote(str(star))} --out subtomos/"


def _are_2d_stacks(general: StarBlock) -> bool:
    text = general.column("rlnTomoSubTomosAre2DStacks")[0].strip()
    return text != "" and number_of(text) != 0


def _tilt_images(document: StarDocument, block: StarBlock) -> InputError:
    """The series of 2D images that Warp and M write has a row for every tilt of every particle."""
    return InputError(
        "these rows are the 2D tilt images of particles, as Warp and M write image series: a row is a tilt, and a "
        "particle is an rlnGroupName",
        file=document.source,
        row=block.header_line + 1,
        expected="one row for each particle",
        found=f"{block.n_rows} tilt images of {_tilt_image_groups(block)} particles",
        remedy=f"make 3D subtomograms of them: {import_command(document.source)}",
    )


def _tilt_image_groups(block: StarBlock) -> int:
    """How many particles the rows are tilts of; 0 where a row is a particle.

    Dose and tilt set the B factor and scale of every tilt (rlnCtfBfactor, rlnCtfScalefactor), so they differ within
    a particle. They also differ between particles of one micrograph, after refinement of the CTF: these lie in other
    places, and no micrograph has two groups.
    """
    dose = [label for label in ("rlnCtfBfactor", "rlnCtfScalefactor") if label in block]
    if "rlnGroupName" not in block or not dose or {"rlnTomoName", "rlnCtfImage"} & {*block.labels}:
        return 0
    names = block.column("rlnGroupName")
    groups = set(names)
    if not len(groups) < len(names):
        return 0

    def distinct(labels: list[str]) -> int:
        return len(set(zip(names, *(block.column(label) for label in labels), strict=True)))

    places = [label for label in ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ") if label in block]
    several = "rlnMicrographName" in block and len(set(block.column("rlnMicrographName"))) < len(groups)
    in_one_place = distinct(places) == len(groups) if places else len(groups) == 1
    return len(groups) if (several or in_one_place) and distinct(dose) > len(groups) else 0


def _refuse_2d(document: StarDocument, block: StarBlock) -> None:
    optics = document.find("optics")
    if holds_tilt_stacks(document):
        raise InputError(
            "these particles are stacks of 2D tilt images, not 3D subtomograms",
            file=document.source,
            row=int(document.block("general").line_numbers[0]),
            expected="_rlnTomoSubTomosAre2DStacks 0",
            found=f"_rlnTomoSubTomosAre2DStacks 1; {describe_layout(document)}",
            remedy=f"make 3D subtomograms of them: {import_command(document.source)}",
        )
    is_single_particle = (
        "rlnCoordinateX" in block
        and "rlnDefocusU" in block
        and not {"rlnCoordinateZ", "rlnCenteredCoordinateZAngst", "rlnTomoName", "rlnCtfImage"} & {*block.labels}
    )
    if is_single_particle:
        raise InputError(
            "these particles are 2D single-particle images, not subtomograms",
            file=document.source,
            row=block.header_line + 1,
            expected="subtomograms: rlnCoordinateZ, rlnTomoName or rlnCtfImage",
            found="a defocus and coordinates in x and y only",
            remedy="give the particles.star of a tomography project",
        )
    is_flat = optics is not None and "rlnImageDimensionality" in optics and optics.n_rows > 0
    if optics is not None and is_flat and set(map(number_of, optics.column("rlnImageDimensionality"))) == {2}:
        raise InputError(
            "these particles are 2D images, not 3D subtomograms",
            file=document.source,
            row=int(optics.line_numbers[0]),
            expected="rlnImageDimensionality 3",
            found="2 in every optics group",
            remedy="write the particles as 3D subtomograms; stacks of tilt images, which `cryodc import` reads, have "
            "_rlnTomoSubTomosAre2DStacks 1 in data_general",
        )


def _no_particles(document: StarDocument) -> InputError:
    labels = {label for block in document.blocks for label in block.labels}
    shown = shlex.quote(str(document.source))
    found, remedy = "no rlnImageName", "give the particles.star that names the extracted subtomograms"
    if "rlnTomoParticlesFile" in labels:
        block = next(block for block in document.blocks if "rlnTomoParticlesFile" in block)
        named = block.column("rlnTomoParticlesFile")
        found = "an optimisation set, which only names other files"
        remedy = f"give the particles it names, {named[0] if named else 'rlnTomoParticlesFile'}; "
        remedy += f"if they are 2D stacks: {import_command(document.source)}"
    elif labels & {"rlnTomoProjX", "rlnTomoTiltSeriesStarFile", "rlnTomoTiltSeriesName"}:
        found = "a table of tomograms"
    elif labels & {"rlnCoordinateX", "rlnCenteredCoordinateXAngst"}:
        found = "coordinates without images"
        remedy = (
            f"cut subtomograms out of tomograms at these picks: cryodc extract TOMOGRAM.mrc --picks {shown} --box 64 "
        )
        remedy += "--out subtomos/; or write them for another program: cryodc convert"
    elif "rlnMicrographName" in labels or "rlnMicrographMovieName" in labels:
        found = "a table of micrographs"
    return InputError(
        "the STAR holds no particles",
        file=document.source,
        expected="a table with rlnImageName, one row per subtomogram",
        found=found,
        remedy=remedy,
    )
