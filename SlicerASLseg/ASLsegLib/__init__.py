"""What the Slicer module ASLseg is made of; every other file beside ASLseg.py would be a module."""

from ASLsegLib.paths import make_library_importable

make_library_importable()
