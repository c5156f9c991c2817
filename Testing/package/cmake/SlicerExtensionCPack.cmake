# The description file that goes along with a package, and the package itself (`cpack` in the build tree).

set(_description "${CMAKE_BINARY_DIR}/${EXTENSION_NAME}.s4ext")
file(WRITE ${_description}
"homepage ${EXTENSION_HOMEPAGE}
contributors ${EXTENSION_CONTRIBUTORS}
description ${EXTENSION_DESCRIPTION}
iconurl ${EXTENSION_ICONURL}
screenshoturls ${EXTENSION_SCREENSHOTURLS}
depends ${EXTENSION_DEPENDS}
")
install(FILES ${_description} DESTINATION "${Slicer_INSTALL_ROOT}${Slicer_SHARE_DIR}" COMPONENT RuntimeLibraries)

set(CPACK_GENERATOR "TGZ")
set(CPACK_MONOLITHIC_INSTALL ON)
set(CPACK_PACKAGE_FILE_NAME "${Slicer_REVISION}-${EXTENSION_NAME}")
include(CPack)
