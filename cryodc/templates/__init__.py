"""The codes of volumes. Content: how well each particle matches maps, in all orientations, where it was measured.

The best of all orientations is what no rotation of the particle changes. What it is matched with is learned from the
particles in two rounds, without labels, poses or gradients:

1. random shapes (:mod:`cryodc.templates.shapes`) give a first code, good enough for many small, nearly pure groups;
2. each group is aligned from nothing into a *template*, in two half sets (:mod:`cryodc.templates.learn`);
3. scores against all templates, less what the missing wedge does to them (:mod:`cryodc.templates.wedge`), are the code,
   in units of how particles of one template spread in them – noise, shift and grid – which is simulated from the
   templates themselves (:mod:`cryodc.templates.spread`).

Transformation: how each particle lies on the average of those like it, and how it differs from them
(:mod:`cryodc.templates.placed`). :mod:`cryodc.templates.decoder` makes volumes of both.
"""
