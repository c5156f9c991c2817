"""Widgets of ctk, qMRML and Slicer by their real names, and the views that show the scene."""
