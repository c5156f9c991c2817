"""Training of each part of a run, pseudo-labels and their selection, rounds.

Which parts a method has is said in `methods`, which may import it, as may `runs`.
"""
