// Derives the sparse index (picture: common/sparse_index.h) from CSR.
#pragma once

#include <cstdint>

#include "common/sparse_index.h"

namespace requant::cpu {

// Bytes of the index of a weight [out_features, in_features] with `entries` non-zeros.
int64_t sparse_index_bytes(int64_t out_features, int64_t in_features, int64_t entries);

// The parts of an index that starts at `bytes`; null parts if bytes is null.
SparseIndex view_sparse_index(const void* bytes, int64_t out_features, int64_t in_features);

// Writes the index. row_offsets [out_features + 1]; columns uint16 or int32 [entries], in range; values any 16-bit
// type. Throws std::invalid_argument if a row offset or a column is out of range.
void build_sparse_index(const int32_t* row_offsets, const void* columns, bool short_columns, const uint16_t* values,
                        int64_t out_features, int64_t in_features, int64_t entries, void* index);

}  // namespace requant::cpu
