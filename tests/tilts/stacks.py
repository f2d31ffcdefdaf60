"""2D stacks of a known protein, as WarpTools and RELION write them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryodc.fourier import soft_sphere
from cryodc.io import read_volume
from cryodc.particles import read_particles
from cryodc.tilts import ImportSummary

N = 24
PIXEL = 10.0
TILTS = np.arange(-57.0, 60.0, 6.0)
TOMOGRAM = np.array([400.0, 300.0, 120.0])  # x, y, z, pixels of the images
TILT_PIXEL = 2.5
# No mirror or turn maps these onto themselves: x, y, z in Å, and how bright each is.
BLOBS = np.array([[0, 0, 0], [55, 0, 0], [0, 40, 10], [-15, -10, 50], [20, -35, -30]], dtype=float)
BRIGHT = np.array([1.0, 0.9, 0.7, 1.1, 0.6])
SIGMA = 14.0


def _projection(tilt: float) -> NDArray[np.float64]:
    """A tilt about x and y, then the tilt axis turned in the image: xyz, tomogram → image."""
    return Rotation.from_euler("xyz", [2.0, tilt, 84.0], degrees=True).as_matrix()


def _ctf(u: float, v: float, angle: float, ky: Any, kx: Any) -> Any:
    """RELION's CTF, with the defocus as a matrix; 300 kV, Cs 2.7 mm, Q 0.07."""
    wavelength = 12.2643247 / np.sqrt(3e5 * (1 + 3e5 * 0.978466e-6))
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turn = np.array([[c, s], [-s, c]])
    defocus = turn.T @ np.diag([-u, -v]) @ turn
    quadratic = defocus[0, 0] * kx**2 + 2 * defocus[0, 1] * kx * ky + defocus[1, 1] * ky**2
    gamma = np.pi * wavelength * quadratic + np.pi / 2 * 2.7e7 * wavelength**3 * (kx**2 + ky**2) ** 2
    return -np.sin(gamma - np.arcsin(0.07))


def _damage(dose: float, ky: Any, kx: Any) -> Any:
    with np.errstate(divide="ignore"):
        return np.exp(-0.5 * dose / (0.245 * np.hypot(kx, ky) ** -1.665 + 2.81))


@dataclass
class Stacks:
    """What to simulate and how to write it down."""

    folder: Path
    layout: str = "warp"
    premultiplied: bool = True
    hand: int = -1
    stated_hand: int = -1
    n_particles: int = 2
    noise: float = 0.0
    visible: list[int] = field(default_factory=lambda: [1] * len(TILTS))
    subtomogram: tuple[float, float, float] | None = None
    size: int = N

    def position(self, i: int) -> NDArray[np.float64]:
        """Å from the centre of the tomogram, x y z."""
        return (np.array([[0.3, -0.2, 0.35], [-0.35, 0.3, -0.3]])[i % 2] + 0.01 * i) * TOMOGRAM * PIXEL

    def transfers(self, i: int) -> list[NDArray[np.float64]]:
        """CTF · damage · scale of each tilt on the half-Fourier grid."""
        ky = np.fft.fftfreq(self.size, PIXEL)[:, None]
        kx = np.fft.rfftfreq(self.size, PIXEL)[None]
        return [self.transfer(i, f, ky, kx) for f in range(len(TILTS))]

    def transfer(self, i: int, f: int, ky: Any, kx: Any) -> Any:
        """CTF · damage · scale of one tilt: deeper particles have more or less defocus, as ``hand`` says."""
        depth = self.hand * (_projection(TILTS[f]) @ self.position(i))[2]
        scale = np.cos(np.radians(TILTS[f]))
        return _ctf(23000 + depth, 21000 + depth, 30.0, ky, kx) * _damage(3.0 * f, ky, kx) * scale

    def images(self, i: int) -> NDArray[np.float32]:
        """One image per tilt: blobs, seen through the microscope, with noise of one variance."""
        noise = np.random.default_rng(i).standard_normal((len(TILTS), self.size, self.size)) * self.noise
        axis = (np.arange(self.size) - self.size // 2) * PIXEL
        stack = []
        for f, transfer in enumerate(self.transfers(i)):
            x, y, _ = _projection(TILTS[f]) @ BLOBS.T
            shapes = np.exp(-((axis[:, None, None] - y) ** 2 + (axis[None, :, None] - x) ** 2) / (2 * SIGMA**2))
            # A Gaussian summed along the beam: its height in voxels times √(2π) σ.
            projected = shapes @ BRIGHT * (np.sqrt(2 * np.pi) * SIGMA / PIXEL)
            image = np.fft.irfft2(np.fft.rfft2(projected) * transfer, s=(self.size, self.size)) + noise[f]
            if self.premultiplied:
                image = np.fft.irfft2(np.fft.rfft2(image) * transfer, s=(self.size, self.size))
            stack.append(image)
        return np.array(stack, dtype=np.float32)

    def write(self) -> Path:
        """Write everything; gives the particles.star."""
        self.folder.mkdir(parents=True, exist_ok=True)
        shown = np.array(self.visible) == 1
        rows = []
        for i in range(self.n_particles):
            images = self.images(i)
            images[~shown] = 1000.0  # What nobody may look at.
            name = f"stacks/{i}_stack2d.mrcs"
            (self.folder / "stacks").mkdir(exist_ok=True)
            with mrcfile.new(self.folder / name, images if self.layout == "warp" else images[shown]) as mrc:
                mrc.voxel_size = PIXEL
                mrc.set_image_stack()
            position = self.position(i)
            if self.layout == "warp":
                position = position / PIXEL + TOMOGRAM / 2
            cells = ["TS_1", f"TS_1/{i}", name, f"{3800 + i}.25", "-0.50", "7.", "1", *(f"{x:.4f}" for x in position)]
            cells += [str(angle) for angle in self.subtomogram or ()]
            rows.append("  ".join([*cells, "[" + ",".join(map(str, self.visible)) + "]"]))
        kind = "Coordinate{}" if self.layout == "warp" else "CenteredCoordinate{}Angst"
        labels = ["TomoName", "TomoParticleName", "ImageName", "AngleRot", "AngleTilt", "AnglePsi", "OpticsGroup"]
        labels += [kind.format(axis) for axis in "XYZ"]
        labels += [f"TomoSubtomogram{angle}" for angle in ("Rot", "Tilt", "Psi")] if self.subtomogram else []
        optics = _loop(
            "optics",
            [
                "OpticsGroup",
                "OpticsGroupName",
                "TomoTiltSeriesPixelSize",
                "CtfDataAreCtfPremultiplied",
                "ImageDimensionality",
                "TomoSubtomogramBinning",
                "ImagePixelSize",
                "ImageSize",
            ],
            [f"1 one {TILT_PIXEL} {int(self.premultiplied)} 2 4.00000 {PIXEL:.5f} {self.size}"],
        )
        star = self.folder / "particles.star"
        star.write_text(
            "# version 50001\n\ndata_general\n\n_rlnTomoSubTomosAre2DStacks   1\n\n"
            + optics
            + _loop("particles", [*labels, "TomoVisibleFrames"], rows)
        )
        self._write_tomograms()
        return star

    def _write_tomograms(self) -> None:
        sizes = " ".join(f"{int(size * PIXEL / TILT_PIXEL)}" for size in TOMOGRAM)
        labels = ["TomoName", "TomoHand", "TomoTiltSeriesPixelSize", "Voltage", "SphericalAberration"]
        labels += ["AmplitudeContrast", "TomoSizeX", "TomoSizeY", "TomoSizeZ"]
        row = f"TS_1 {self.stated_hand} {TILT_PIXEL} 300 2.7 0.07 {sizes}"
        tilts = []
        for f, tilt in enumerate(TILTS):
            if self.layout == "warp":
                matrix = np.eye(4)
                matrix[:3, :3] = _projection(tilt)
                geometry = " ".join("[" + ",".join(f"{x:.9f}" for x in line) + "]" for line in matrix)
            else:
                geometry = f"2.0 {tilt} 84.0"
            tilts.append(f"{geometry} 23000 21000 30.0 {np.cos(np.radians(tilt)):.6f} {3.0 * f}")
        geometry_labels = ["TomoProjX", "TomoProjY", "TomoProjZ", "TomoProjW"]
        if self.layout != "warp":
            geometry_labels = ["TomoXTilt", "TomoYTilt", "TomoZRot"]
        optics_labels = ["DefocusU", "DefocusV", "DefocusAngle", "CtfScalefactor", "MicrographPreExposure"]
        table = _loop("TS_1", geometry_labels + optics_labels, tilts)
        path = self.folder / "tomograms.star"
        if self.layout == "warp":
            path.write_text(_loop("global", labels, [row]) + table)
            return
        (self.folder / "TS_1.star").write_text(table)
        path.write_text(_loop("global", [*labels, "TomoTiltSeriesStarFile"], [row + " TS_1.star"]))
        (self.folder / "optimisation_set.star").write_text(
            "data_\n\n_rlnTomoParticlesFile particles.star\n_rlnTomoTomogramsFile tomograms.star\n"
        )


def _loop(name: str, labels: list[str], rows: list[str]) -> str:
    header = "\n".join(f"_rln{label} #{i}" for i, label in enumerate(labels, start=1))
    return f"data_{name}\n\nloop_\n{header}\n" + "\n".join(f"  {row}" for row in rows) + "\n\n\n"


def _phantom(blobs: NDArray[np.float64], box: int = N, pixel: float = PIXEL) -> NDArray[np.float64]:
    """The blobs as a volume, z y x, about index ``box // 2``."""
    axis = (np.arange(box) - box // 2) * pixel
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    distances = [(x - bx) ** 2 + (y - by) ** 2 + (z - bz) ** 2 for bx, by, bz in blobs]
    return np.sum([b * np.exp(-d / (2 * SIGMA**2)) for b, d in zip(BRIGHT, distances, strict=True)], axis=0)


def _imported(summary: ImportSummary, i: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    particles = read_particles(summary.star)
    assert particles.weight_images is not None
    weights = mrcfile.read(particles.weight_images[i].path)
    return read_volume(particles.images[i]).voxels, weights


def _seen(weights: Any, phantom: NDArray[np.float64]) -> NDArray[np.float64]:
    """``W · V``: what the weight says would be seen of the phantom."""
    box = len(phantom)
    spectrum = np.fft.fftn(np.fft.ifftshift(phantom))[:, :, : box // 2 + 1] * weights[:box]
    return np.fft.fftshift(np.fft.irfftn(spectrum, s=phantom.shape, axes=(0, 1, 2)))


def _agreement(volume: Any, weights: Any, phantom: NDArray[np.float64]) -> float:
    """Correlation with what the weight says would be seen of the phantom."""
    box = len(phantom)
    sphere = soft_sphere(box, box / 2 - 4, 2.0).numpy()
    return float(np.corrcoef((volume * sphere).ravel(), (_seen(weights, phantom) * sphere).ravel())[0, 1])
