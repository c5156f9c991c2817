"""All methods on the same cases, seeds and number of steps, with tables and tests.

No method is defined here. Only the command line imports it.
"""
