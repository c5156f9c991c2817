"""The report of a run: one page of HTML that opens without a network.

It reads the run folder and needs no torch. The command line and the engine import it.
"""
