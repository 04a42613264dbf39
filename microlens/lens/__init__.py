"""Magnification of a source by one lens or two: PSPL, FSPL, 2L1S; caustics, critical curves, trajectory.

    A = pspl(t, t_0, u_0, t_E)            A = binary(t, t_0, u_0, t_E, rho, s, q, alpha)

Frame: origin at the centre of mass, primary at x = -q s/(1+q), secondary at x = s/(1+q); lengths in Einstein radii of the
total mass, angles in radians. The source moves along

    x = tau cos(alpha) - u_0 sin(alpha)      y = tau sin(alpha) + u_0 cos(alpha)      tau = (t - t_0)/t_E

single     point and finite source, one lens          engine     the only file that calls the lens libraries
caustics   critical curves, caustics, topology        curves     whole light curves: few adaptive nodes, or every epoch
expansion  point source and hexadecapole, away from caustics
"""

from microlens.lens.caustics import caustics, critical_curves, crosses_caustic, topology
from microlens.lens.curves import REACH, Nodes, binary, nodes, render, single_nodes, trajectory
from microlens.lens.engine import ENGINES, MagnificationError, binary_at, engine_version
from microlens.lens.single import fspl, fspl_at, pspl, pspl_at

__all__ = [
    "ENGINES",
    "REACH",
    "MagnificationError",
    "Nodes",
    "binary",
    "binary_at",
    "caustics",
    "critical_curves",
    "crosses_caustic",
    "engine_version",
    "fspl",
    "fspl_at",
    "nodes",
    "pspl",
    "pspl_at",
    "render",
    "single_nodes",
    "topology",
    "trajectory",
]
