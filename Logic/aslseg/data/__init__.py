"""Volumes, label maps and masks: reading, writing and geometry.

No project, no settings of a run and no torch live here. Everything above may import it.
"""
