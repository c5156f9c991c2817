"""The engine's process as the panel sees it: start, requests, events, results, failures.

No widget lives here. `logic` and `widgets` may import it.
"""
