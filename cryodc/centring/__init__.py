"""Particles that lie beside the middle of their box: found, and moved to it."""

from cryodc.centring.mass import find_mass
from cryodc.centring.recentre import Recentred, RecentreRequest, recentre_particles

__all__ = ["RecentreRequest", "Recentred", "find_mass", "recentre_particles"]
