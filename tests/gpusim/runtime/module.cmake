# The Python module _cuda_gpusim, for tests: the objects of _cuda, linked with a stand-in for the CUDA runtime and the
# simulator instead of the toolkit's runtime.

set(runtime_sources ${CMAKE_CURRENT_LIST_DIR}/cudart.cpp ${CMAKE_CURRENT_LIST_DIR}/simulated_device.cpp
    ${CMAKE_CURRENT_LIST_DIR}/device_bindings.cpp)
pybind11_add_module(_cuda_gpusim NO_EXTRAS EXCLUDE_FROM_ALL csrc/bindings/cuda.cpp ${runtime_sources}
                    ${REQUANT_CUDA_OBJECTS} ${REQUANT_CUDA_HOST_SOURCES})
target_link_libraries(_cuda_gpusim PRIVATE gpusim_core)
target_include_directories(_cuda_gpusim PRIVATE csrc ${CMAKE_CURRENT_LIST_DIR})
# The headers of the toolkit's runtime declare what the stand-in defines.
target_include_directories(_cuda_gpusim SYSTEM PRIVATE ${REQUANT_CUDA_TOOLKIT}/include)
target_compile_options(_cuda_gpusim PRIVATE -Wall -Wextra -Wshadow)
target_compile_definitions(_cuda_gpusim PRIVATE REQUANT_MODULE=_cuda_gpusim REQUANT_SIMULATED
                           ${REQUANT_CUDA_DEFINITIONS})
