// What c10d's ProcessGroupGloo.hpp needs to know of Gloo. PyTorch's wheel has the library, inside libtorch_cpu, but not its
// headers. ProcessGroupGloo holds Gloo's types behind smart pointers only, so declarations suffice: no object of them is made
// here, and no member is laid out by them.
#pragma once

#include <chrono>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

} // namespace gloo
