# Stands in for the build tree of 3D Slicer, so that the extension can be configured, built,
# installed, packaged and tested without it:
#
#   cmake -S . -B build -DSlicer_DIR=Testing/package/cmake
#
# Only what this extension uses is here, under the names and with the arguments that Slicer has, and
# strict where Slicer is: an unknown argument or a missing file is an error.

set(Slicer_VERSION_MAJOR 5)
set(Slicer_VERSION_MINOR 12)
set(Slicer_REVISION "stand-in")
set(Slicer_USE_PYTHONQT ON)

set(_slicer_lib "lib/Slicer-${Slicer_VERSION_MAJOR}.${Slicer_VERSION_MINOR}")
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR "${_slicer_lib}/qt-scripted-modules")
set(Slicer_QTLOADABLEMODULES_LIB_DIR "${_slicer_lib}/qt-loadable-modules")
set(Slicer_CLIMODULES_LIB_DIR "${_slicer_lib}/cli-modules")
set(Slicer_SHARE_DIR "share/Slicer-${Slicer_VERSION_MAJOR}.${Slicer_VERSION_MINOR}")
set(Slicer_INSTALL_ROOT "./")

set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/SlicerExtensionGenerateConfig.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/SlicerExtensionCPack.cmake")

# The application that ctest starts: ours, on the stand-in for Slicer of Testing/standin.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
get_filename_component(_launcher "${CMAKE_CURRENT_LIST_DIR}/../../standin/__main__.py" ABSOLUTE)
set(Slicer_LAUNCHER_EXECUTABLE "${Python3_EXECUTABLE};${_launcher}")
