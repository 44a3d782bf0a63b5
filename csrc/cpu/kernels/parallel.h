// One parallel region per call: the full team or none, and every thread owns a fixed share of the work. Changing the
// size of OpenMP's team costs more than most calls take, so there is never a partial team.
#pragma once

#include <omp.h>

#include <cstdint>

namespace requant::cpu::REQUANT_ISA {
namespace {

struct Team {
  int thread;
  int threads;

  struct Range {
    int64_t begin, end;
  };
  // This thread's share of `count` items.
  Range share(int64_t count) const { return {count * thread / threads, count * (thread + 1) / threads}; }

  void wait_for_all() const {
    if (threads > 1) {
#pragma omp barrier
    }
  }
};

// Calls work(Team) on every thread of a team of `threads`, or once, serially, inside somebody else's parallel region.
template <class Work>
void parallel(int threads, const Work& work) {
  if (threads <= 1 || omp_in_parallel()) {
    work(Team{0, 1});
    return;
  }
#pragma omp parallel num_threads(threads)
  work(Team{omp_get_thread_num(), omp_get_num_threads()});
}

}  // namespace
}  // namespace requant::cpu::REQUANT_ISA
