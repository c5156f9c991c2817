"""The command `aslseg`: options to calls of the library, events to lines and bars.

No work is done here. Nobody imports it.
"""
