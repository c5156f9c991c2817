"""A simulated person who labels a data set in several ways, and what that costs.

`prices` says what an act costs, `sight` what an eye sees, `person` what is done about it, `desk` by
which buttons; `ways` are the ways to label, `study` goes through them, `curves` prices what was
logged and draws it.
"""
