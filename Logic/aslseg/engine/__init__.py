"""The process that works for the panel: requests on its input, events on its output.

Nothing here knows Slicer. The panel starts it as `python -m aslseg.engine`, and imports
`protocol` alone; nobody else imports it.
"""
