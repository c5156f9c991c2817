"""The panel: its sections, each with the controls of one step.

Nothing is computed here. Only the module's own file imports it.
"""
