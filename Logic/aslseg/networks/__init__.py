"""The networks other than SAM, their checkpoints, and how networks run: device, precision, padding.

What trains or applies them lives in `training` and `inference`, which may import it.
"""
