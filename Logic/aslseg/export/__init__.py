"""Taking the work home: label maps, where each comes from, and tables of what they measure.

Nothing of a project is changed here. Imports `project` and `evaluation`, and no torch; the engine,
the command line and what segments whole folders import it.
"""
