"""Tests of the stand-in itself: they know no module but those that they write."""
