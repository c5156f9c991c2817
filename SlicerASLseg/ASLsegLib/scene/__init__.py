"""MRML nodes: volumes, segmentations, prompts, slice views, plots.

Nothing here knows the engine, the project or a widget. All of the panel may import it.
"""
