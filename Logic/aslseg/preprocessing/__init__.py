"""From volumes to what a network reads: intensities, regions of interest, patches, augmentation.

No network and no training lives here. Everything from `networks` up may import it.
"""
