"""The Segment Anything Model: its parts, weights, tuning, embeddings, and its use on slices.

No project and no round of training lives here. Everything from `inference` up may import it.
"""
