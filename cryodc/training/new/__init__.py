"""Particles that a run was not trained on: their codes and clusters, and poses on its averages."""

from cryodc.training.new.particles import Encoded, EncodeRequest, encode_new
from cryodc.training.new.poses import ReadyAverage, poses_on_averages

__all__ = ["EncodeRequest", "Encoded", "ReadyAverage", "encode_new", "poses_on_averages"]
