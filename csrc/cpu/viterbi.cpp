// The trellis encoder: for every sequence of 256 targets the closed walk of states whose values come closest, by
// Viterbi's algorithm. Compiled once per instruction set.
//
// With P = 2^step_bits and G = 2^(16 - step_bits), state s has the predecessors p * G + (s / P), p < P: all P states
// that share s / P = g, their *group*, have the same ones. So a step takes the minimum once per group,
//
//   least[g] = min over p of cost[p * G + g]                 and remembers which p it was (a *pointer*)
//   cost'[g * P + j] = least[g] + (target - value[g * P + j])^2,   j < P
//
// Costs are 16-bit integers, lowered by their minimum in every step. Every state can be reached from the cheapest one
// in ceil(16 / step_bits) steps, so no two costs are further apart than the errors of that many steps: errors are
// limited such that they fit. Targets and values are fixed point, a squared difference drops 15 bits, and their unit
// puts the limit at a difference of 3/4 of the largest value, which no walk takes that has a choice. That leaves 9
// units for the mean error of 4 bits per value and 70 for that of 2 bits.
//
// A walk is closed if the last state's low bits are the first state's high bits, 16 - step_bits of them. Two searches:
// the first is free, over the sequence rotated by its half, so that the seam where the end meets the beginning is in
// the middle (its steps are numbered -middle ..< middle); there it decides the shared bits. The second search is over
// the sequence as it is and keeps to them.
//
// Pointers are stored in fields of 2, 4 or 8 bits: word (k, lane) holds those of the groups (k * F + i) * lanes + lane,
// i < F, field i at bit i * 16 / F.
#include "viterbi.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "isa/words.h"
#include "kernels.h"
#include "kernels/buffer.h"
#include "kernels/parallel.h"

namespace requant::cpu::REQUANT_ISA {
namespace {

using Register = Words16::Register;
constexpr uint16_t kForbidden = 0xffff;
constexpr float kLimitedShare = 0.75f;

template <int kStepBits, int kValues>
class Viterbi {
  static constexpr int kLanes = Words16::kLanes;
  static constexpr int kPredecessors = 1 << kStepBits;
  static constexpr int kGroups = kStates / kPredecessors;
  static constexpr int kFieldBits = kStepBits <= 2 ? 2 : kStepBits <= 4 ? 4 : 8;
  static constexpr int kFields = 16 / kFieldBits;
  static constexpr int kPointerWords = kGroups / kFields;                       // of one step
  static constexpr int kReachSteps = (kStateBits + kStepBits - 1) / kStepBits;  // from any state to all
  static constexpr int kLargestError = (kForbidden - 1) / (kReachSteps + 1);
  static constexpr int kSteps = kSequenceValues / kValues, kMiddle = kSteps / 2;
  // The costs that a step compares lie a power of two apart, if not for some padding, and would share a cache set.
  static constexpr int kPadding = 2 * kLanes;
  static constexpr int kCosts = kStates + kPredecessors * kPadding;
  static constexpr int address(int state) { return state + state / kGroups * kPadding; }

 public:
  explicit Viterbi(const ViterbiArguments& arguments) : arguments_(arguments), values_(kStates * kValues) {
    const int count = kStates * kValues;
    float largest = 0;
    for (int i = 0; i < count; ++i) largest = std::max(largest, std::fabs(arguments.values[i]));
    // The squared difference of kLimitedShare of the largest value is the largest error.
    unit_ = std::sqrt(kLargestError * 32768.0f) / (kLimitedShare * largest);
    for (int state = 0; state < kStates; ++state) {
      for (int i = 0; i < kValues; ++i) {
        values_.data()[i * kStates + state] = fixed_point(arguments.values[state * kValues + i]);
      }
    }
  }

  void run() const {
    std::atomic<int64_t> next{0};
    parallel(arguments_.threads, [&](const Team&) {
      Search search(*this);
      for (int64_t sequence = next++; sequence < arguments_.sequences; sequence = next++) {
        search.encode(arguments_.targets + sequence * kSequenceValues, arguments_.states + sequence * kSteps);
      }
    });
  }

 private:
  uint16_t fixed_point(float value) const {
    const float units = std::min(std::max(value * unit_, -32767.0f), 32767.0f);
    return static_cast<uint16_t>(static_cast<int16_t>(std::lrintf(units)));
  }

  // The working memory of one thread.
  class Search {
   public:
    explicit Search(const Viterbi& shared)
        : shared_(shared), cost_(2 * kCosts), pointers_(static_cast<int64_t>(kSteps) * kPointerWords) {}

    void encode(const float* targets, uint16_t* states) {
      for (int i = 0; i < kSequenceValues; ++i) targets_[i] = shared_.fixed_point(targets[i]);
      uint16_t* cost = start(-kMiddle, [](int) { return true; });
      cost = walk(cost, -kMiddle + 1, kMiddle);
      int state = 0;
      for (int last = 1; last < kStates; ++last) {
        if (cost[address(last)] < cost[address(state)]) state = last;
      }
      for (int step = kMiddle - 1; step > 0; --step) state = predecessor(state, step);
      const int overlap = state >> kStepBits;

      cost = start(0, [&](int first) { return first >> kStepBits == overlap; });
      cost = walk(cost, 1, kSteps);
      state = overlap;
      for (int last = overlap; last < kStates; last += kGroups) {
        if (cost[address(last)] < cost[address(state)]) state = last;
      }
      for (int step = kSteps - 1; step > 0; --step) {
        states[step] = static_cast<uint16_t>(state);
        state = predecessor(state, step);
      }
      states[0] = static_cast<uint16_t>(state);
    }

   private:
    uint16_t target(int step, int i) const { return targets_[((step + kSteps) % kSteps) * kValues + i]; }

    // Costs of a first step in the states that are allowed.
    template <class Allowed>
    uint16_t* start(int step, Allowed allowed) {
      uint16_t* cost = cost_.data();
      for (int state = 0; state < kStates; ++state) cost[address(state)] = allowed(state) ? 0 : kForbidden;
      for (int state = 0; state < kStates; state += kLanes) {
        uint16_t* own = cost + address(state);
        Words16::store(own, Words16::add(Words16::load(own), error(state, step)));
      }
      return cost;
    }

    // Takes the steps first ..< last and returns the costs after them. Pointers of steps before 0 are not kept.
    uint16_t* walk(uint16_t* cost, int first, int last) {
      for (int step = first; step < last; ++step) {
        // Until all states are reached, some costs are forbidden: those must stay the largest.
        if (step - first < kReachSteps) lowest_ = 0;
        uint16_t* next = cost_.data() + (cost == cost_.data() ? kCosts : 0);
        take_step(cost, step, next, pointers_.data() + static_cast<int64_t>(std::max(step, 0)) * kPointerWords);
        cost = next;
      }
      return cost;
    }

    REQUANT_INLINE Register error(int state, int step) const {
      Register sum{};
      unroll<0, kValues>([&](auto i) REQUANT_INLINE {
        const Register value = Words16::load(shared_.values_.data() + i.value * kStates + state);
        const Register square = Words16::square(Words16::difference(value, Words16::splat(target(step, i.value))));
        sum = i.value == 0 ? square : Words16::add(sum, square);
      });
      return Words16::minimum(sum, Words16::splat(kLargestError));
    }

    void take_step(const uint16_t* cost, int step, uint16_t* next, uint16_t* pointers) {
      const Register lowest = Words16::splat(lowest_);
      Register new_lowest = Words16::splat(kForbidden);
      for (int word = 0; word < kPointerWords; word += kLanes) {
        Register fields{};
        for (int field = 0; field < kFields; ++field) {
          const int group = word * kFields + field * kLanes;
          Register least = Words16::load(cost + group), place{};
#pragma GCC unroll 16
          for (int p = 1; p < kPredecessors; ++p) {
            Words16::keep_smaller(least, place, Words16::load(cost + address(p * kGroups) + group), Words16::splat(p));
          }
          fields = Words16::bit_or(fields, Words16::shift_left(place, field * kFieldBits));
          least = Words16::subtract(least, lowest);
          new_lowest = Words16::minimum(new_lowest, least);
          const Words16::Repeated repeated(least);
#pragma GCC unroll 16
          for (int part = 0; part < kPredecessors; ++part) {
            const Register reached = repeated.repeat(part * kLanes >> kStepBits, kStepBits);
            const int state = group * kPredecessors + part * kLanes;
            Words16::store(next + address(state), Words16::add(reached, error(state, step)));
          }
        }
        Words16::store(pointers + word, fields);
      }
      uint16_t lowest_by_lane[kLanes];
      Words16::store(lowest_by_lane, new_lowest);
      lowest_ = *std::min_element(lowest_by_lane, lowest_by_lane + kLanes);
    }

    // The state before `state`, which was reached in this step.
    int predecessor(int state, int step) const {
      const int group = state >> kStepBits, row = group / kLanes, word = row / kFields * kLanes + group % kLanes;
      const int fields = pointers_.data()[static_cast<int64_t>(step) * kPointerWords + word];
      const int p = fields >> row % kFields * kFieldBits & (kPredecessors - 1);
      return p * kGroups + group;
    }

    const Viterbi& shared_;
    Buffer<uint16_t> cost_;
    Buffer<uint16_t> pointers_;
    uint16_t targets_[kSequenceValues];
    uint16_t lowest_ = 0;  // the least of all `least` of the last step
  };

  const ViterbiArguments& arguments_;
  Buffer<uint16_t> values_;  // [kValues][kStates]
  float unit_;               // fixed point units per 1.0
};

}  // namespace

void viterbi(const ViterbiArguments& arguments) {
  switch (arguments.step_bits * 16 + arguments.values_per_step) {
    case 2 * 16 + 1:
      return Viterbi<2, 1>(arguments).run();
    case 3 * 16 + 1:
      return Viterbi<3, 1>(arguments).run();
    case 4 * 16 + 1:
      return Viterbi<4, 1>(arguments).run();
    case 4 * 16 + 2:
      return Viterbi<4, 2>(arguments).run();
    case 6 * 16 + 2:
      return Viterbi<6, 2>(arguments).run();
    case 8 * 16 + 2:
      return Viterbi<8, 2>(arguments).run();
  }
}

}  // namespace requant::cpu::REQUANT_ISA
