"""A stand-in for the application 3D Slicer: see README.md.

Importing this package sets what Qt and VTK have to know before they are loaded.
"""

import ctypes
import os
import sys

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
# Enum values are integers for PythonQt, and are named without the enum they belong to.
os.environ["PYSIDE6_OPTION_PYTHON_ENUM"] = "0x06"
os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
# PySide 6.12 gives one reference to None too few with each void call. From Python 3.12 on None
# cannot die of that; before, it does after some ten thousand calls, and the process with it.
if sys.version_info < (3, 12):
    ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40
