# The Python module _cuda: the kernels, linked with the toolkit's static runtime, so that it needs no CUDA library of its
# own beside the driver, and not even that one to be imported.

file(GLOB library_folders ${REQUANT_CUDA_TOOLKIT}/lib64 ${REQUANT_CUDA_TOOLKIT}/lib ${REQUANT_CUDA_TOOLKIT}/targets/*/lib)
find_library(REQUANT_CUDART libcudart_static.a PATHS ${library_folders} NO_DEFAULT_PATH NO_CACHE REQUIRED)
find_package(Threads REQUIRED)

pybind11_add_module(_cuda NO_EXTRAS EXCLUDE_FROM_ALL csrc/bindings/cuda.cpp ${REQUANT_CUDA_OBJECTS} ${REQUANT_CUDA_HOST_SOURCES})
target_include_directories(_cuda PRIVATE csrc)
target_include_directories(_cuda SYSTEM PRIVATE ${REQUANT_CUDA_TOOLKIT}/include)
target_compile_options(_cuda PRIVATE -Wall -Wextra -Wshadow)
target_compile_definitions(_cuda PRIVATE REQUANT_MODULE=_cuda ${REQUANT_CUDA_DEFINITIONS})
target_link_libraries(_cuda PRIVATE ${REQUANT_CUDART} Threads::Threads ${CMAKE_DL_LIBS} rt)
target_link_options(_cuda PRIVATE -Wl,--exclude-libs,ALL)
