# Tests that run inside the application, one after the other.

function(slicer_add_python_unittest)
  cmake_parse_arguments(MY "" "TESTNAME_PREFIX;SCRIPT" "SLICER_ARGS" ${ARGN})
  get_filename_component(name ${MY_SCRIPT} NAME_WE)
  get_filename_component(folder ${MY_SCRIPT} PATH)
  if("${folder}" STREQUAL "")
    set(folder ${CMAKE_CURRENT_SOURCE_DIR})
  endif()
  add_test(
    NAME py_${MY_TESTNAME_PREFIX}${name}
    COMMAND ${Slicer_LAUNCHER_EXECUTABLE}
      --no-splash
      --testing
      ${MY_SLICER_ARGS}
      --additional-module-paths
        ${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}
        ${CMAKE_BINARY_DIR}/${Slicer_CLIMODULES_LIB_DIR}
        ${CMAKE_BINARY_DIR}/${Slicer_QTLOADABLEMODULES_LIB_DIR}
      --python-code "import slicer.testing; slicer.testing.runUnitTest(['${CMAKE_CURRENT_BINARY_DIR}', '${folder}'], '${name}')"
    )
  set_property(TEST py_${MY_TESTNAME_PREFIX}${name} PROPERTY RUN_SERIAL TRUE)
endfunction()
