"""The embedded driving world: it simulates, renders and asks, and writes data sets in the published formats.

    scene -> drive -> views -> observed -> questions -> files
    (kinds, actors)  (logged states)  (six pictures, instance masks)  (what can be seen)  (DriveLM, CODA-LM, Senna)

A house of its own: nothing in this package imports it but the command line and quickstart, and it imports the records, the
problems and the label rules of `data/senna_rules.py`. What it writes is read by the ordinary readers.

World frame: metres, x and y on the ground, z up; yaw counter-clockwise from x, in radians.
Ego frame: x forward, y left. (Senna's and nuScenes' lidar frame, x right and y forward, exists in the written files only.)
"""

VERSION = "1"
"""Version of the generator. It changes when the same seed gives other pixels or other questions."""
