// What is counted per instruction while a kernel runs.
#pragma once

#include "simulator.h"

namespace gpusim {

struct Tally {
  InstructionCount count;
  GlobalTraffic global;
  SharedTraffic shared;
};

}  // namespace gpusim
