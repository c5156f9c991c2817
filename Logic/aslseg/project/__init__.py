"""The project folder on disk: cases, human labels, runs and decisions about them.

Nothing here trains or predicts, and nothing needs torch. Everything from `training` up, and the
panel, may import it.
"""
