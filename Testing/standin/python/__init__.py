"""What Slicer has in Python: scripted modules, typed parameters, packaging, samples."""
