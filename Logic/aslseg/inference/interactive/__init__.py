"""Predictions about an open volume that follow a person's prompts.

Nothing here trains or knows how requests arrive. The engine imports it.
"""
