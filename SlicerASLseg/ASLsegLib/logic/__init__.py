"""What the panel's buttons do, callable from Slicer's Python console.

No widget lives here. Only `widgets` and the module's own file import it.
"""
