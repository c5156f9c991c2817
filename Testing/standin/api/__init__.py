"""Which names Slicer, Qt and ctk have, and which of those that a module uses they lack."""
