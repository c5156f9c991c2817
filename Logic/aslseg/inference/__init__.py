"""From a volume to probabilities and labels with trained networks.

Nothing here trains, and `segment` enters no file of `training`, which may import it.
"""
