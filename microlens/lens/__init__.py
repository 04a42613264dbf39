"""Magnification of a source by one lens or two: PSPL, FSPL, 2L1S; caustics, critical curves, trajectory.

    A = pspl(t, t_0, u_0, t_E)            A = binary(t, t_0, u_0, t_E, rho, s, q, alpha)

Frame: the origin is the centre of mass, the primary is at x = -q s/(1+q), the secondary at x = s/(1+q); lengths are
in Einstein radii of the total mass, angles in radians. The source moves along

    x = tau cos(alpha) - u_0 sin(alpha)      y = tau sin(alpha) + u_0 cos(alpha)      tau = (t - t_0)/t_E

roots          roots of polynomials
parallax       the Earth's motion and what it does to a path
path           where source and lenses are, tracks, the lens equation
engine         the only file that calls the lens libraries
single         one lens: point source, finite source, two sources
caustics       critical curves, caustics, topology, where the limb of a source meets a caustic
expansion      a finite source away from caustics: point sources and hexadecapole
limb           a finite source anywhere: an integral along its limb
magnification  single positions, each on two independent estimates
curves         whole light curves: few adaptive nodes, or every epoch

With annual parallax the path is bent: `Parallax(pi_EN, pi_EE)` is an argument of all light curves.
"""

from microlens.lens.caustics import caustics, critical_curves, crosses_caustic, topology
from microlens.lens.curves import LensedSource, binary, nodes, nodes_along, render, single_nodes, single_nodes_along
from microlens.lens.engine import ENGINES, MagnificationError, engine_version
from microlens.lens.expansion import REACH
from microlens.lens.magnification import binary_at
from microlens.lens.parallax import ROMAN_FIELD, Field, Parallax, displacement, event_parallax, parallax_offsets
from microlens.lens.path import Track, bent_track, lens_positions, source_position, straight_track, trajectory
from microlens.lens.single import fspl, fspl_at, pspl, pspl_at, two_sources

__all__ = [
    "ENGINES", "REACH", "ROMAN_FIELD", "Field", "LensedSource", "MagnificationError", "Parallax", "Track",
    "bent_track", "binary", "binary_at", "caustics", "critical_curves", "crosses_caustic", "displacement",
    "engine_version", "event_parallax", "fspl", "fspl_at", "lens_positions", "nodes", "nodes_along", "parallax_offsets",
    "pspl", "pspl_at", "render", "single_nodes", "single_nodes_along", "source_position", "straight_track", "topology",
    "trajectory", "two_sources",
]
