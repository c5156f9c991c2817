# Copies scripts and resources to the build tree, byte-compiles the scripts there, and installs the
# folder that they were copied to. What Slicer's has and this keeps:
#   * a relative path is kept below DESTINATION_DIR, "../" included, which then is not installed
#   * a script whose suffix has no "py" in it gets ".py"; so py.typed must be a resource
#   * the whole DESTINATION_DIR is installed, below INSTALL_DIR or, with NO_INSTALL_SUBDIR, as it

function(_copy_python_files kind)
  set(copies)
  foreach(file IN LISTS ARGN)
    set(source "${MY_SOURCE_DIR}/${file}")
    set(copy "${MY_DESTINATION_DIR}/${file}")
    add_custom_command(
      OUTPUT ${copy}
      COMMAND ${CMAKE_COMMAND} -E copy ${source} ${copy}
      DEPENDS ${source}
      COMMENT "Copying python ${kind}: ${file}"
      )
    list(APPEND copies ${copy})
  endforeach()
  if(copies)
    add_custom_target(Copy${MY_TARGET_NAME}Python${kind}Files ALL DEPENDS ${copies})
  endif()
  set(copies ${copies} PARENT_SCOPE)
endfunction()

function(ctkMacroCompilePythonScript)
  cmake_parse_arguments(MY
    "NO_INSTALL_SUBDIR;GLOBAL_TARGET"
    "TARGET_NAME;SOURCE_DIR;DESTINATION_DIR;INSTALL_DIR"
    "SCRIPTS;RESOURCES"
    ${ARGN}
    )
  foreach(name IN ITEMS TARGET_NAME SCRIPTS DESTINATION_DIR INSTALL_DIR)
    if(NOT DEFINED MY_${name})
      message(FATAL_ERROR "${name} is mandatory")
    endif()
  endforeach()
  if(NOT DEFINED MY_SOURCE_DIR)
    set(MY_SOURCE_DIR ${CMAKE_CURRENT_SOURCE_DIR})
  endif()

  set(scripts)
  foreach(file IN LISTS MY_SCRIPTS)
    get_filename_component(suffix ${file} EXT)
    if(NOT suffix MATCHES "py")
      string(APPEND file ".py")
    endif()
    list(APPEND scripts ${file})
  endforeach()

  _copy_python_files(Resource ${MY_RESOURCES})
  _copy_python_files(Script ${scripts})
  set(stamp "${CMAKE_CURRENT_BINARY_DIR}/python_compile_${MY_TARGET_NAME}_complete")
  add_custom_command(
    OUTPUT ${stamp}
    COMMAND ${Python3_EXECUTABLE} -m py_compile ${copies}
    COMMAND ${CMAKE_COMMAND} -E touch ${stamp}
    DEPENDS ${copies}
    COMMENT "Compiling python scripts: ${MY_TARGET_NAME}"
    )
  add_custom_target(Compile${MY_TARGET_NAME}PythonFiles ALL DEPENDS ${stamp})

  set(folder "${MY_DESTINATION_DIR}")
  if(MY_NO_INSTALL_SUBDIR)
    set(folder "${MY_DESTINATION_DIR}/")
  endif()
  install(DIRECTORY "${folder}" DESTINATION "${MY_INSTALL_DIR}" COMPONENT RuntimeLibraries)
endfunction()
