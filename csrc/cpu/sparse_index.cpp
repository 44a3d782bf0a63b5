#include "cpu/sparse_index.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

namespace requant::cpu {
namespace {

int64_t divide_up(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

int64_t offset_count(int64_t out_features, int64_t in_features) {
  return divide_up(out_features, kTileRows) * divide_up(in_features, kStretchInputs) + 1;
}

}  // namespace

int64_t sparse_index_bytes(int64_t out_features, int64_t in_features, int64_t entries) {
  return (offset_count(out_features, in_features) + entries) * static_cast<int64_t>(sizeof(uint32_t));
}

SparseIndex view_sparse_index(const void* bytes, int64_t out_features, int64_t in_features) {
  const uint32_t* offsets = static_cast<const uint32_t*>(bytes);
  if (offsets == nullptr) return {nullptr, nullptr};
  return {offsets, offsets + offset_count(out_features, in_features)};
}

void build_sparse_index(const int32_t* row_offsets, const void* columns, bool short_columns, const uint16_t* values,
                        int64_t out_features, int64_t in_features, int64_t entries, void* index) {
  const int64_t stretches = divide_up(in_features, kStretchInputs);
  uint32_t* offsets = static_cast<uint32_t*>(index);
  uint32_t* sorted = offsets + offset_count(out_features, in_features);
  offsets[0] = 0;

  const auto column = [&](int64_t entry) -> int64_t {
    const int64_t value = short_columns ? static_cast<const uint16_t*>(columns)[entry]
                                        : static_cast<int64_t>(static_cast<const int32_t*>(columns)[entry]);
    if (value < 0 || value >= in_features) {
      throw std::invalid_argument("columns must lie in 0.." + std::to_string(in_features - 1) + ", found " +
                                  std::to_string(value));
    }
    return value;
  };
  const auto row_offset = [&](int64_t row) -> int64_t {
    const int64_t value = row_offsets[row], least = row == 0 ? 0 : row_offsets[row - 1];
    const int64_t most = row == 0 ? 0 : entries;
    if (value < least || value > most || (row == out_features && value != entries)) {
      throw std::invalid_argument("row_offsets must rise from 0 to the number of values, " + std::to_string(entries) +
                                  "; row_offsets[" + std::to_string(row) + "] is " + std::to_string(value));
    }
    return value;
  };

  row_offset(0);
  std::vector<uint32_t> next(kStretchInputs);
  std::vector<int64_t> position(kTileRows), row_end(kTileRows);
  for (int64_t tile = 0; tile < divide_up(out_features, kTileRows); ++tile) {
    const int64_t rows = std::min<int64_t>(kTileRows, out_features - tile * kTileRows);
    for (int64_t row = 0; row < rows; ++row) {
      position[row] = row_offsets[tile * kTileRows + row];
      row_end[row] = row_offset(tile * kTileRows + row + 1);
    }
    for (int64_t stretch = 0; stretch < stretches; ++stretch) {
      // Columns rise within a row, so each row's share of the stretch is the next run of its entries: count the entries
      // of each input, then put them in place.
      uint32_t* offset = offsets + tile * stretches + stretch;
      const int64_t begin = stretch * kStretchInputs, end = begin + kStretchInputs;
      next.assign(kStretchInputs + 1, 0);
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t entry = position[row]; entry < row_end[row] && column(entry) < end; ++entry) {
          if (column(entry) < begin) throw std::invalid_argument("columns must rise within each row");
          ++next[column(entry) - begin + 1];
        }
      }
      next[0] = offset[0];
      for (int64_t input = 0; input < kStretchInputs; ++input) next[input + 1] += next[input];
      offset[1] = next[kStretchInputs];
      for (int64_t row = 0; row < rows; ++row) {
        for (; position[row] < row_end[row] && column(position[row]) < end; ++position[row]) {
          const int64_t input = column(position[row]) - begin;
          sorted[next[input]++] = static_cast<uint32_t>(values[position[row]]) << kEntryValueShift |
                                  static_cast<uint32_t>(row) << kEntryInputBits | static_cast<uint32_t>(input);
        }
      }
    }
  }
}

}  // namespace requant::cpu
