"""
In which directions do the fibres run?
======================================

The directions of wires, fibres or tubes are measured pixel by pixel, without training. The first
panel shows each direction as a hue: the rim of the rose is the key. The second panel shows
regions of wires with similar directions, and the rose shows how frequent each direction is.
"""

# %%
# The image is synthetic, so the true directions are known. `find` also takes the path of a file,
# and then reads the pixel size from it if the file contains it.
import matplotlib.pyplot as plt
import numpy as np

from hypervlad import make_fibre_images
from hypervlad.fibres import AlignmentRecipe, axial_difference
from hypervlad.results import OrientationDisplay

(image,), (truth,) = make_fibre_images(1, aligned=0.6, diameter=7, cover=0.5, random_state=3)
result = AlignmentRecipe(pixel_size=4.0).find(image)

# %%
# Directions are axes: 0° is horizontal, 90° vertical, and 180° is the same as 0°. The order
# parameter is 1 if all directions are equal and 0 if none is preferred. It is low here, because the
# regions have different directions, so the mean direction says little.
print(f"mean direction: {np.rad2deg(result.statistics.mean):.0f}°")
print(f"order parameter: {result.statistics.order:.2f}")
for region in result.aligned.regions[:3]:
    print(f"region of {region.area} px: {np.rad2deg(region.mean_angle):.0f}°")

# %%
# The measured directions can be compared with the true ones, at all pixels of wires where a
# direction was measured. The direction at a pixel is an average over its surroundings, so errors
# are large where wires end or cross.
measured = result.orientation
both = (truth.fibres >= 0) & measured.mask
error = np.abs(axial_difference(measured.orientation[both], truth.orientation[both]))
print(f"median error: {np.rad2deg(np.median(error)):.1f}°")
print(f"errors above 20°: {np.mean(error > np.deg2rad(20)):.0%} of the pixels")

# %%
OrientationDisplay(result, name="synthetic nanowires").plot()
plt.suptitle("Directions of the wires, regions of parallel wires, and rose of directions")
plt.show()

# %%
# ``hypervlad align`` writes the same figures, maps and tables for a folder of images: see
# :doc:`/reference/commands`. In Python, :func:`hypervlad.fibres.local_orientation` returns the
# directions as arrays.
