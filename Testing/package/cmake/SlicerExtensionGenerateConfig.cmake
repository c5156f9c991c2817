# Slicer writes <Extension>Config.cmake here, for extensions that build upon this one.
file(WRITE "${CMAKE_BINARY_DIR}/${EXTENSION_NAME}Config.cmake" "set(${EXTENSION_NAME}_DIR \"${CMAKE_BINARY_DIR}\")\n")
