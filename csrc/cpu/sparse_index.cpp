#include "cpu/sparse_index.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>

namespace requant::cpu {
namespace {

int64_t divide_up(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

int64_t offset_count(int64_t out_features, int64_t in_features) {
  return divide_up(out_features, kTileRows) * span_count(in_features) + 1;
}

// Reads CSR, refusing what is out of range.
class CsrReader {
 public:
  CsrReader(const int32_t* row_offsets, const void* columns, bool short_columns, const uint16_t* values,
            int64_t out_features, int64_t in_features, int64_t entries)
      : row_offsets_(row_offsets),
        columns_(columns),
        short_columns_(short_columns),
        values_(values),
        out_features_(out_features),
        in_features_(in_features),
        entries_(entries) {
    row_offset(0);
  }

  int64_t column(int64_t entry) const {
    const int64_t value = short_columns_ ? static_cast<const uint16_t*>(columns_)[entry]
                                         : static_cast<int64_t>(static_cast<const int32_t*>(columns_)[entry]);
    if (value < 0 || value >= in_features_) {
      throw std::invalid_argument("columns must lie in 0.." + std::to_string(in_features_ - 1) + ", found " +
                                  std::to_string(value));
    }
    return value;
  }
  int64_t row_offset(int64_t row) const {
    const int64_t value = row_offsets_[row], least = row == 0 ? 0 : row_offsets_[row - 1];
    const int64_t most = row == 0 ? 0 : entries_;
    if (value < least || value > most || (row == out_features_ && value != entries_)) {
      throw std::invalid_argument("row_offsets must rise from 0 to the number of values, " + std::to_string(entries_) +
                                  "; row_offsets[" + std::to_string(row) + "] is " + std::to_string(value));
    }
    return value;
  }
  uint32_t value(int64_t entry) const { return values_[entry]; }

 private:
  const int32_t* row_offsets_;
  const void* columns_;
  bool short_columns_;
  const uint16_t* values_;
  int64_t out_features_;
  int64_t in_features_;
  int64_t entries_;
};

// One row's entries within a span: begin ..< end of CSR.
struct Run {
  int64_t begin, end;
  int row;
  int64_t count() const { return end - begin; }
};

}  // namespace

int64_t sparse_index_bytes(int64_t out_features, int64_t in_features, int64_t entries) {
  const int64_t offsets = offset_count(out_features, in_features);
  return (offsets + (offsets - 1) * kTileRows + entries) * static_cast<int64_t>(sizeof(uint32_t));
}

SparseIndex view_sparse_index(const void* bytes, int64_t out_features, int64_t in_features) {
  const uint32_t* offsets = static_cast<const uint32_t*>(bytes);
  if (offsets == nullptr) return {nullptr, nullptr};
  return {offsets, offsets + offset_count(out_features, in_features)};
}

void build_sparse_index(const int32_t* row_offsets, const void* columns, bool short_columns, const uint16_t* values,
                        int64_t out_features, int64_t in_features, int64_t entries, void* index) {
  const CsrReader csr(row_offsets, columns, short_columns, values, out_features, in_features, entries);
  const int64_t spans = span_count(in_features);
  uint32_t* offset = static_cast<uint32_t*>(index);
  uint32_t* const words = offset + offset_count(out_features, in_features);
  uint32_t* next = words;
  *offset = 0;

  std::array<Run, kTileRows> runs;
  for (int64_t tile = 0; tile < divide_up(out_features, kTileRows); ++tile) {
    std::array<int64_t, kTileRows> position, row_end;
    for (int row = 0; row < kTileRows; ++row) {
      const int64_t row_begin = std::min(tile * kTileRows + row, out_features);
      position[row] = csr.row_offset(row_begin);
      row_end[row] = csr.row_offset(std::min(row_begin + 1, out_features));
    }
    for (int64_t span = 0; span < spans; ++span) {
      const int64_t first_input = span * kSpanInputs, end_input = first_input + kSpanInputs;
      for (int row = 0; row < kTileRows; ++row) {
        runs[row] = {position[row], position[row], row};
        int64_t& end = runs[row].end;
        for (int64_t last = first_input - 1; end < row_end[row] && csr.column(end) < end_input;
             last = csr.column(end++)) {
          if (csr.column(end) <= last) throw std::invalid_argument("columns must rise within each row");
        }
        position[row] = end;
      }
      std::stable_sort(runs.begin(), runs.end(), [](const Run& a, const Run& b) { return a.count() > b.count(); });
      if (runs[0].count() > 0) {
        for (const Run& run : runs) {
          *next++ = static_cast<uint32_t>(run.count()) << kLaneRowBits | static_cast<uint32_t>(run.row);
        }
        const auto append = [&](int64_t entry) {
          *next++ = csr.value(entry) << kEntryValueShift | static_cast<uint32_t>(csr.column(entry) - first_input);
        };
        const int64_t layers = runs[kFullLanes - 1].count();
        for (int64_t layer = 0; layer < layers; ++layer) {
          for (int lane = 0; lane < kTileRows && runs[lane].count() > layer; ++lane) append(runs[lane].begin + layer);
        }
        for (int lane = 0; lane < kFullLanes; ++lane) {
          for (int64_t entry = runs[lane].begin + layers; entry < runs[lane].end; ++entry) append(entry);
        }
      }
      *++offset = static_cast<uint32_t>(next - words);
    }
  }
}

}  // namespace requant::cpu
