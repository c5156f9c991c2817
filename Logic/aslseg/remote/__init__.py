"""The engine on another computer: what it needs is sent there once, what it makes comes back.

`station` runs on that computer, started by ssh; everything else runs here. Knows requests and
events of `engine.protocol`, and projects; no networks. The command line imports it, and the panel
starts it as a process that speaks the engine's protocol.
"""
