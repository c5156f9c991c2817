"""From a volume to probabilities and labels with trained networks.

Nothing here trains or imports `training`, which may import it; so `aslseg segment` does not either.
"""
