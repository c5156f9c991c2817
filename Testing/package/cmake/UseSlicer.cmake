# Included by `include(${Slicer_USE_FILE})`: the macros, and where things are installed.

set(EXTENSION_NAME ${PROJECT_NAME})
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR "${Slicer_INSTALL_ROOT}${Slicer_QTSCRIPTEDMODULES_LIB_DIR}")

foreach(variable IN ITEMS HOMEPAGE CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  if("${EXTENSION_${variable}}" STREQUAL "")
    message(FATAL_ERROR "EXTENSION_${variable} is not set in front of include(\${Slicer_USE_FILE})")
  endif()
endforeach()

include(CTest)
include("${CMAKE_CURRENT_LIST_DIR}/ctkMacroCompilePythonScript.cmake")
include("${CMAKE_CURRENT_LIST_DIR}/SlicerMacroPythonTesting.cmake")
include("${CMAKE_CURRENT_LIST_DIR}/SlicerMacroBuildScriptedModule.cmake")
