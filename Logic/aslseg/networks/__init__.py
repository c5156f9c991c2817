"""The networks other than SAM, their checkpoints, and the device that they run on.

What trains or applies them lives in `training` and `inference`, which may import it.
"""
