"""python -m microlens.figures [FOLDER]: draw the figures of a folder (figures/) again from their tables."""

import sys

from microlens.figures import redraw

for made in redraw(*sys.argv[1:2]):
    print(made)
