"""CT-like patients made in code, for the demonstration and for tests.

Nothing about projects or networks lives here. The command line and tests import it.
"""
