"""All methods on the same cases, draws and seeds, with tables and tests.

No method is defined here. Only the command line imports it.
"""
