# Compiles csrc/cuda/*.cu, one object per file, for REQUANT_CUDA_ARCHS, by calling nvcc. (CMake's own CUDA language tries
# the compiler by linking with a toolkit's lib64, which nvcc from PyPI does not have.) Defines
#
#   REQUANT_NVCC              the compiler: CUDA_HOME/bin/nvcc, else the one in PATH
#   REQUANT_NVCC_OPTIONS      how it is called
#   REQUANT_CUDA_SOURCES      the sources
#   REQUANT_CUDA_OBJECTS      what they are compiled to
#   REQUANT_PTX               with REQUANT_GPUSIM: the PTX for compute capability 8.0 that the objects were made of
#   REQUANT_CUDA_HOST_SOURCES what belongs to them and needs no nvcc
#   REQUANT_CUDA_DEFINITIONS  of what the bindings tell about them
#   REQUANT_CUDA_TOOLKIT      the toolkit's root, also if REQUANT_NVCC is a script that calls the real one

find_program(REQUANT_NVCC nvcc HINTS $ENV{CUDA_HOME}/bin NO_CACHE REQUIRED)
execute_process(COMMAND ${REQUANT_NVCC} --dryrun -x cu /dev/null OUTPUT_VARIABLE dryrun ERROR_VARIABLE dryrun)
if(NOT dryrun MATCHES "#\\$ TOP=([^\r\n]+)")
  message(FATAL_ERROR "${REQUANT_NVCC} --dryrun does not tell where its toolkit is:\n${dryrun}")
endif()
get_filename_component(REQUANT_CUDA_TOOLKIT "${CMAKE_MATCH_1}" REALPATH)

set(REQUANT_NVCC_OPTIONS -std=c++17 -O3 -I${CMAKE_SOURCE_DIR}/csrc -Werror all-warnings
    -Xcompiler -Wall,-Wextra,-fPIC,-fvisibility=hidden)

# "90" stands for machine code for compute capability 9.0; "90+PTX" adds PTX, which newer devices compile themselves.
list(JOIN REQUANT_CUDA_ARCHS " " architectures)
set(code_options)
foreach(architecture ${REQUANT_CUDA_ARCHS})
  string(REGEX MATCH "^[0-9]+a?" number ${architecture})
  list(APPEND code_options -gencode arch=compute_${number},code=sm_${number})
  if(architecture MATCHES "\\+PTX$")
    list(APPEND code_options -gencode arch=compute_${number},code=compute_${number})
  endif()
endforeach()

set(REQUANT_CUDA_DEFINITIONS "REQUANT_CUDA_ARCHITECTURES=\"${architectures}\"")

set(REQUANT_CUDA_OBJECTS)
file(GLOB REQUANT_CUDA_SOURCES CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/csrc/cuda/*.cu)
file(GLOB REQUANT_CUDA_HOST_SOURCES CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/csrc/cuda/*.cpp)
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/cuda)
set(REQUANT_PTX)
list(LENGTH REQUANT_CUDA_ARCHS architecture_count)
if(REQUANT_GPUSIM AND NOT "80" IN_LIST REQUANT_CUDA_ARCHS)
  message(FATAL_ERROR "The simulator runs PTX for compute capability 8.0: REQUANT_CUDA_ARCHS must have 80 in it")
endif()
foreach(source ${REQUANT_CUDA_SOURCES})
  get_filename_component(name ${source} NAME_WE)
  set(object ${CMAKE_BINARY_DIR}/cuda/${name}.o)
  set(keep_ptx)
  set(copy_ptx)
  if(REQUANT_GPUSIM)
    set(kept ${CMAKE_BINARY_DIR}/cuda/${name})
    set(ptx ${CMAKE_BINARY_DIR}/ptx/${name}.ptx)
    file(MAKE_DIRECTORY ${kept} ${CMAKE_BINARY_DIR}/ptx)
    set(keep_ptx --keep --keep-dir ${kept})
    if(architecture_count GREATER 1)
      set(copy_ptx COMMAND ${CMAKE_COMMAND} -E copy ${kept}/${name}.compute_80.ptx ${ptx})
    else()
      set(copy_ptx COMMAND ${CMAKE_COMMAND} -E copy ${kept}/${name}.ptx ${ptx})
    endif()
    list(APPEND REQUANT_PTX ${ptx})
  endif()
  add_custom_command(
    OUTPUT ${object} ${ptx}
    COMMAND ${REQUANT_NVCC} ${REQUANT_NVCC_OPTIONS} ${code_options} ${keep_ptx} -MMD -MF ${object}.d -c ${source} -o ${object}
    ${copy_ptx}
    DEPENDS ${source}
    DEPFILE ${object}.d
    COMMENT "Compiling csrc/cuda/${name}.cu for ${architectures}"
    VERBATIM)
  list(APPEND REQUANT_CUDA_OBJECTS ${object})
endforeach()
