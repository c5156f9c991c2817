"""What tests of several folders share: small images, projects, runs and networks, and doubles.

Nothing here is a test but what `sam_methods` lets tests of two methods inherit; fixtures that every
test may ask for are in `Testing/conftest.py`.
"""
