// Rows of W = D + S, for the matrix product with many tokens.
//
// A block of threads makes one tile of 16 rows and one slice of 256 inputs as fp32 in shared memory, adds the sparse
// entries of that tile and slice, and writes the sums, each rounded once:
//
//   row 0    | input 0 ... 255 | 4 floats unused |       A row begins four banks after the one before it, so that eight
//   row 1    | input 0 ... 255 |                 |       lanes that store 16 bytes each, in eight rows, meet in no
//   bank.
//   ...
//   row 15
#include <stdexcept>
#include <string>

#include "common/tile16.h"
#include "cuda/arguments.h"
#include "cuda/check_launch.h"
#include "cuda/primitives.cuh"
#include "cuda/trellis.h"

namespace requant::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kSliceSteps = kSliceInputs / kStepInputs;
constexpr int kRowStride = kSliceInputs + 4;
constexpr int kStepsAtOnce = kThreads / kTileRows;

__host__ __device__ constexpr int64_t divide_up(int64_t value, int64_t divisor) {
  return (value + divisor - 1) / divisor;
}

__device__ float load_float(const void* numbers, Dtype dtype, int64_t index) {
  return number_of(load_number(numbers, dtype, index), dtype);
}

// How W is stored: in fp32, or in 16 bits of a dtype that is known when the kernel runs.
template <class Storage>
__device__ Storage round_to(float value, Dtype dtype) {
  if constexpr (sizeof(Storage) == sizeof(float)) {
    return value;
  } else {
    return narrow(value, dtype);
  }
}

// The codes of one step of a row: eight consecutive inputs.
template <int kBits>
__device__ void load_codes(const uint8_t* block, int row, int step, uint32_t (&codes)[kStepInputs]) {
  using Layout = Block<kBits>;
  const uint8_t* plane = block + step / Layout::kStepsPerPlane * kPlaneBytes;
  const uint4 unit = *reinterpret_cast<const uint4*>(plane + row * kUnitBytes);
  const uint32_t dwords[4] = {unit.x, unit.y, unit.z, unit.w};
  const int shift = step % Layout::kStepsPerPlane * Layout::kFieldBits;
#pragma unroll
  for (int i = 0; i < kStepInputs; ++i) {
    codes[i] = dwords[i / 2] >> (shift + 16 * (i % 2)) & ((1u << Layout::kFieldBits) - 1);
  }
  if constexpr (kBits == 3) {
    const uint2 high = *reinterpret_cast<const uint2*>(block + kPlaneBytes + row * kStepInputs);
    const uint32_t high_dwords[2] = {high.x, high.y};
#pragma unroll
    for (int i = 0; i < kStepInputs; ++i) codes[i] |= (high_dwords[i / 4] >> (8 * (i % 4) + step) & 1u) << 2;
  }
}

// scale * (code - zero)
template <int kBits>
class UniformRow {
 public:
  static constexpr int kSharedFloats = 1;  // none are used
  __device__ static void load_tables(const Weight&, int64_t, float*) {}

  __device__ UniformRow(const Weight& weight, int64_t group_row, const float*, int)
      : scale_(load_float(weight.scale, weight.scale_dtype, group_row)),
        zero_(weight.zero == nullptr ? 1 << (kBits - 1) : load_float(weight.zero, weight.scale_dtype, group_row)) {}
  __device__ float value(uint32_t code) const { return (static_cast<float>(code) - zero_) * scale_; }

 private:
  float scale_;
  float zero_;
};

// table[code] * scale
template <int kBits>
class LutRow {
  static constexpr int kEntries = 1 << kBits;
  static constexpr int kTableStride = kEntries + 1;  // equal codes of different rows lie in different banks

 public:
  static constexpr int kSharedFloats = kTileRows * kTableStride;
  __device__ static void load_tables(const Weight& weight, int64_t tile, float* tables) {
    for (int i = threadIdx.x; i < kTileRows * kEntries; i += kThreads) {
      const int row = i / kEntries, entry = i % kEntries;
      const int64_t table = weight.shared_table ? 0 : tile * kTileRows + row;
      tables[row * kTableStride + entry] = load_float(weight.table, weight.table_dtype, table * kEntries + entry);
    }
  }

  __device__ LutRow(const Weight& weight, int64_t group_row, const float* tables, int row)
      : table_(tables + row * kTableStride),
        scale_(weight.scale == nullptr ? 1 : load_float(weight.scale, weight.scale_dtype, group_row)) {}
  __device__ float value(uint32_t code) const { return table_[code] * scale_; }

 private:
  const float* table_;
  float scale_;
};

// Writes the slice, kElements neighbours of a row at a time.
template <class Storage, int kElements>
__device__ void write_slice(const float* slice, Storage* w, Dtype dtype, int rows, int inputs, int64_t in_features) {
  struct alignas(sizeof(Storage) * kElements) Neighbours {
    Storage elements[kElements];
  };
  for (int i = threadIdx.x; i < kTileRows * kSliceInputs / kElements; i += kThreads) {
    const int row = i / (kSliceInputs / kElements), input = i % (kSliceInputs / kElements) * kElements;
    if (row >= rows || input >= inputs) continue;
    Neighbours neighbours;
#pragma unroll
    for (int j = 0; j < kElements; ++j) {
      neighbours.elements[j] = round_to<Storage>(slice[row * kRowStride + input + j], dtype);
    }
    *reinterpret_cast<Neighbours*>(w + row * in_features + input) = neighbours;
  }
}

template <template <int> class Row, int kBits, class Storage>
__global__ void __launch_bounds__(kThreads) dequantize_slice(DequantizeArguments arguments) {
  __shared__ float slice[kTileRows * kRowStride];
  __shared__ float tables[Row<kBits>::kSharedFloats];
  const Weight& weight = arguments.weight;
  const int64_t in_features = weight.in_features;
  const int64_t slices = divide_up(in_features, kSliceInputs);
  const int64_t first_tile = arguments.row_begin / kTileRows;
  const int64_t tile = first_tile + blockIdx.x / slices;
  const int64_t slice_begin = blockIdx.x % slices * kSliceInputs;
  const int inputs = static_cast<int>(min(in_features - slice_begin, static_cast<int64_t>(kSliceInputs)));

  Row<kBits>::load_tables(weight, tile, tables);
  __syncthreads();

  const int row = threadIdx.x % kTileRows;
  const int64_t groups = weight.group_size < 0 ? 1 : divide_up(in_features, weight.group_size);
  const int64_t first_block = tile * divide_up(in_features, kBlockInputs) + slice_begin / kBlockInputs;
  const uint8_t* blocks = reinterpret_cast<const uint8_t*>(weight.codes) + first_block * Block<kBits>::kBytes;
#pragma unroll
  for (int first_step = 0; first_step < kSliceSteps; first_step += kStepsAtOnce) {
    const int step = first_step + threadIdx.x / kTileRows, input = step * kStepInputs;
    if (input >= inputs) break;
    uint32_t codes[kStepInputs];
    load_codes<kBits>(blocks + step / kStepsPerBlock * Block<kBits>::kBytes, row, step % kStepsPerBlock, codes);
    // A group holds whole steps: its size is a multiple of 32.
    const int64_t group = weight.group_size < 0 ? 0 : (slice_begin + input) / weight.group_size;
    const Row<kBits> dense(weight, (tile * groups + group) * kTileRows + row, tables, row);
    float4* values = reinterpret_cast<float4*>(slice + row * kRowStride + input);
    values[0] = {dense.value(codes[0]), dense.value(codes[1]), dense.value(codes[2]), dense.value(codes[3])};
    values[1] = {dense.value(codes[4]), dense.value(codes[5]), dense.value(codes[6]), dense.value(codes[7])};
  }
  __syncthreads();

  if (weight.sparse.offsets != nullptr) {
    // No two entries share a position, so no two threads meet.
    const uint32_t* offsets = weight.sparse.offsets + tile * slices + slice_begin / kSliceInputs;
    for (uint32_t i = offsets[0] + threadIdx.x; i < offsets[1]; i += kThreads) {
      const uint32_t entry = weight.sparse.entries[i];
      const float value = number_of(entry >> 16, weight.sparse.value_dtype);
      slice[(entry >> 12 & (kTileRows - 1)) * kRowStride + (entry & (kSliceInputs - 1))] += value;
    }
    __syncthreads();
  }

  const int64_t row_begin = tile * kTileRows;
  const int rows = static_cast<int>(min(arguments.row_end - row_begin, static_cast<int64_t>(kTileRows)));
  Storage* w = static_cast<Storage*>(arguments.w) + (row_begin - arguments.row_begin) * in_features + slice_begin;
  constexpr int kVector = 16 / sizeof(Storage);
  if (in_features % kVector == 0) {
    write_slice<Storage, kVector>(slice, w, arguments.w_dtype, rows, inputs, in_features);
  } else {
    write_slice<Storage, 1>(slice, w, arguments.w_dtype, rows, inputs, in_features);
  }
}

using Kernel = void (*)(DequantizeArguments);

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument("dequantize: " + what); }

template <class Storage>
Kernel kernel_for(const Weight& weight) {
  switch (weight.format) {
    case Format::kUniform:
      switch (weight.bits) {
        case 2:
          return dequantize_slice<UniformRow, 2, Storage>;
        case 3:
          return dequantize_slice<UniformRow, 3, Storage>;
        case 4:
          return dequantize_slice<UniformRow, 4, Storage>;
        case 8:
          return dequantize_slice<UniformRow, 8, Storage>;
      }
      break;
    case Format::kLut:
      switch (weight.bits) {
        case 2:
          return dequantize_slice<LutRow, 2, Storage>;
        case 3:
          return dequantize_slice<LutRow, 3, Storage>;
        case 4:
          return dequantize_slice<LutRow, 4, Storage>;
      }
      break;
    case Format::kTrellis:
      break;
  }
  refuse("no kernel for this format with " + std::to_string(weight.bits) + " bits");
}

}  // namespace

void dequantize(const DequantizeArguments& arguments, const Device& device) {
  if (arguments.weight.format == Format::kTrellis) return trellis_rows(arguments, device);
  const int64_t row_begin = arguments.row_begin, row_end = arguments.row_end;
  if (row_begin % kTileRows != 0 || row_begin < 0 || row_end <= row_begin || row_end > arguments.weight.out_features) {
    refuse("rows " + std::to_string(row_begin) + " ..< " + std::to_string(row_end) + " are no tiles of the weight");
  }
  const Weight& weight = arguments.weight;
  const Kernel kernel = arguments.w_dtype == Dtype::kFloat32 ? kernel_for<float>(weight) : kernel_for<uint16_t>(weight);
  const int64_t tiles = divide_up(row_end - row_begin, kTileRows);
  const int64_t slices = divide_up(weight.in_features, kSliceInputs);
  kernel<<<static_cast<unsigned>(tiles * slices), kThreads, 0, static_cast<cudaStream_t>(device.stream)>>>(arguments);
  check_launch("the dequantize kernel");
}

}  // namespace requant::cuda
