# A scripted module: its files into the folder of scripted modules, and the generic test of modules.

function(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  message(STATUS "Configuring Scripted module: ${MY_NAME}")
  if(MY_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "Unknown keywords given to slicerMacroBuildScriptedModule(): \"${MY_UNPARSED_ARGUMENTS}\"")
  endif()
  if(NOT DEFINED MY_NAME)
    message(FATAL_ERROR "NAME is mandatory")
  endif()
  foreach(file IN LISTS MY_SCRIPTS MY_RESOURCES)
    set(path "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
    if(NOT EXISTS ${path} AND NOT EXISTS "${path}.py")
      message(FATAL_ERROR "slicerMacroBuildScriptedModule given nonexistent file or directory '${file}'")
    endif()
  endforeach()

  set(destination "${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}")
  set(no_subdir NO_INSTALL_SUBDIR)
  if(MY_WITH_SUBDIR)
    get_filename_component(name ${CMAKE_CURRENT_SOURCE_DIR} NAME)
    string(APPEND destination "/${name}")
    set(no_subdir)
  endif()
  ctkMacroCompilePythonScript(
    TARGET_NAME ${MY_NAME}
    SCRIPTS "${MY_SCRIPTS}"
    RESOURCES "${MY_RESOURCES}"
    DESTINATION_DIR ${destination}
    INSTALL_DIR ${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}
    ${no_subdir}
    )

  if(BUILD_TESTING AND MY_WITH_GENERIC_TESTS)
    set(MODULE_NAME ${MY_NAME})
    set(test qSlicer${MY_NAME}ModuleGenericTest.py)
    configure_file("${_stand_in_dir}/ModuleGenericTest.py.in" "${CMAKE_CURRENT_BINARY_DIR}/${test}" @ONLY)
    slicer_add_python_unittest(
      SCRIPT ${test}
      SLICER_ARGS --no-main-window --disable-cli-modules
      TESTNAME_PREFIX nomainwindow_
      )
  endif()
endfunction()

set(_stand_in_dir ${CMAKE_CURRENT_LIST_DIR})
