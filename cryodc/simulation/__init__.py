"""Practice particles with a known answer."""

from cryodc.simulation.config import Crowding, SimulatedTiltSeries, SimulationConfig
from cryodc.simulation.folder import choose_proteins, write_simulation
from cryodc.simulation.maps import MapSpecimen, prepare_map, read_map
from cryodc.simulation.phantoms import Phantom, demo_phantoms, phantom
from cryodc.simulation.scene import clean_maps, draw_coordinates, draw_truth, render, weight_index
from cryodc.simulation.simulate import SimulatedParticles, simulate_batches, simulate_particles, tilt_weights
from cryodc.simulation.specimens import Specimen, prepare_specimens, prepare_structure
from cryodc.simulation.truth import Recording, Truth, read_truth, write_particles, write_truth

__all__ = [
    "Crowding",
    "MapSpecimen",
    "Phantom",
    "Recording",
    "SimulatedParticles",
    "SimulatedTiltSeries",
    "SimulationConfig",
    "Specimen",
    "Truth",
    "choose_proteins",
    "clean_maps",
    "demo_phantoms",
    "draw_coordinates",
    "draw_truth",
    "phantom",
    "prepare_map",
    "prepare_specimens",
    "prepare_structure",
    "read_map",
    "read_truth",
    "render",
    "simulate_batches",
    "simulate_particles",
    "tilt_weights",
    "weight_index",
    "write_particles",
    "write_simulation",
    "write_truth",
]
