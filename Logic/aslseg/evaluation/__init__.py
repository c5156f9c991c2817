"""Measures of label maps: overlap, surface distances, lesions, and scores of a case.

It knows volumes and targets, no project and no network. Everything above may import it.
"""
