// What a checker remembers of every byte of a piece of memory, kept per 4-byte word where it can be.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>

namespace gpusim {

// Cells of all-zero bytes, which cost nothing until they are touched.
template <class Cell>
class ZeroedCells {
 public:
  explicit ZeroedCells(size_t count) : cells_(static_cast<Cell*>(std::calloc(count ? count : 1, sizeof(Cell)))) {
    if (!cells_) throw std::bad_alloc();
  }
  Cell& operator[](size_t index) { return cells_.get()[index]; }

 private:
  struct Free {
    void operator()(Cell* cells) const { std::free(cells); }
  };
  std::unique_ptr<Cell, Free> cells_;
};

//   words   | cell of bytes 0..3 | cell of bytes 4..7 | ...     a word that is only accessed as a whole
//   bytes   | c0 | c1 | c2 | c3  | ...                          a word that has been accessed in parts
//   split   | which of the two holds for the word ...
template <class Cell>
class Shadow {
 public:
  explicit Shadow(size_t bytes) : words_(bytes / 4 + 1), bytes_(bytes + 4), split_(bytes / 4 + 1) {}

  // Calls function(cell, offset, bytes) for the cells of an access of 1, 2, 4, 8 or 16 bytes at a multiple of its size.
  template <class Function>
  void visit(size_t offset, unsigned access_bytes, Function function) {
    if (access_bytes < 4) {
      split(offset / 4);
      for (size_t i = offset; i < offset + access_bytes; ++i) function(bytes_[i], i, 1u);
      return;
    }
    for (size_t word = offset / 4; word < (offset + access_bytes) / 4; ++word) {
      if (!split_[word]) {
        function(words_[word], 4 * word, 4u);
      } else {
        for (size_t i = 4 * word; i < 4 * word + 4; ++i) function(bytes_[i], i, 1u);
      }
    }
  }

 private:
  void split(size_t word) {
    if (split_[word]) return;
    split_[word] = 1;
    for (size_t i = 4 * word; i < 4 * word + 4; ++i) bytes_[i] = words_[word];
  }

  ZeroedCells<Cell> words_;
  ZeroedCells<Cell> bytes_;
  ZeroedCells<uint8_t> split_;
};

}  // namespace gpusim
