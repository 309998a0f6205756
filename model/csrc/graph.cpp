// A C surface for model/src/graph.rs and model/src/host_reads.rs: CUDA graphs, and which operators of libtorch wait for a device.
//
// Every function that can fail returns null, or a text that the caller frees with graph_free_text. No exception leaves this file.

#include <ATen/core/Tensor.h>
#include <ATen/record_function.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/headeronly/version.h>

#include "guarded.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

// The names below were compared with this version of libtorch.
static_assert(TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR == 11, "graph.cpp was written for libtorch 2.11");

namespace {

// at::cuda::CUDAGraph is in libtorch_cuda, which is loaded at run time where there is a GPU, and its header wants those of CUDA.
// So its functions are looked up by name; streams and events are reached through the interface of c10 that all devices have.
using MempoolId = std::pair<unsigned long long, unsigned long long>;
using Construct = void (*)(void* self, bool keep_graph);
using CaptureBegin = void (*)(void* self, MempoolId pool, int capture_mode);
using Method = void (*)(void* self);
constexpr const char* kConstruct = "_ZN2at4cuda9CUDAGraphC1Eb";
constexpr const char* kDestroy = "_ZN2at4cuda9CUDAGraphD1Ev";
constexpr const char* kCaptureBegin = "_ZN2at4cuda9CUDAGraph13capture_beginESt4pairIyyE21cudaStreamCaptureMode";
constexpr const char* kCaptureEnd = "_ZN2at4cuda9CUDAGraph11capture_endEv";
constexpr const char* kReplay = "_ZN2at4cuda9CUDAGraph6replayEv";

// cudaStreamCaptureModeGlobal: that no thread of the process may wait for the device meanwhile, as PyTorch captures.
constexpr int kGlobal = 0;

// The object has a few words, a stream and a hash map: far less.
constexpr size_t kGraphBytes = 4096;

template <typename Function>
Function function_of_cuda(const char* name) {
  void* symbol = ::dlsym(RTLD_DEFAULT, name);
  TORCH_CHECK(symbol != nullptr, "libtorch's CUDA library is not loaded, or of another version: it has no ", name);
  return reinterpret_cast<Function>(symbol);
}

c10::impl::VirtualGuardImpl cuda() {
  return c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA);
}

// Has `second` begin what it is given from now on when `first` has done what it was given until now.
void order(const c10::Stream& first, const c10::Stream& second) {
  c10::Event event(c10::DeviceType::CUDA);
  event.record(first);
  event.block(second);
}

struct Graph {
  explicit Graph(int device)
      : construct(function_of_cuda<Construct>(kConstruct)),
        destroy(function_of_cuda<Method>(kDestroy)),
        capture_begin(function_of_cuda<CaptureBegin>(kCaptureBegin)),
        capture_end(function_of_cuda<Method>(kCaptureEnd)),
        replay(function_of_cuda<Method>(kReplay)),
        device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(device)),
        stream(cuda().getStreamFromGlobalPool(this->device)),
        outer(stream),
        memory(::calloc(1, kGraphBytes)) {
    TORCH_CHECK(memory != nullptr, "out of memory");
    try {
      construct(memory, /*keep_graph=*/false);
    } catch (...) {
      ::free(memory);
      throw;
    }
  }

  ~Graph() {
    destroy(memory);
    ::free(memory);
  }

  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  const Construct construct;
  const Method destroy;
  const CaptureBegin capture_begin;
  const Method capture_end;
  const Method replay;
  const c10::Device device;
  // Work is captured in a stream of its own: the default one cannot be.
  const c10::Stream stream;
  // What this thread worked in before it entered.
  c10::Stream outer;
  void* const memory;
};

// What this thread has read on the host since the outermost count began; of very many, the first ones.
thread_local std::vector<std::string> reads;
thread_local int64_t num_reads = 0;
constexpr size_t kNamesMax = 1024;

// Counts that are under way in this thread, and what they observe operators with.
thread_local int num_counts = 0;
thread_local at::CallbackHandle observer = 0;

void note(const char* name) {
  ++num_reads;
  if (reads.size() < kNamesMax) {
    reads.emplace_back(name);
  }
}

// Operators whose result, or its shape, depends on values that the host has to wait for.
bool is_host_read(const char* name) {
  constexpr const char* kNames[] = {
      "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::_unique2", "aten::unique_dim",
      "aten::unique_consecutive", "aten::bincount", "aten::repeat_interleave"};
  return std::any_of(std::begin(kNames), std::end(kNames), [&](const char* known) { return ::strcmp(name, known) == 0; });
}

// Whether an operator copies between devices: it waits, in one direction or where the host's memory is not pinned.
bool is_copy_between_devices(const at::RecordFunction& function) {
  if (::strcmp(function.name(), "aten::copy_") != 0 || function.inputs().size() < 2) {
    return false;
  }
  const auto& to = function.inputs()[0];
  const auto& from = function.inputs()[1];
  return to.isTensor() && from.isTensor() && to.toTensor().device() != from.toTensor().device();
}

std::unique_ptr<at::ObserverContext> on_operator(const at::RecordFunction& function) {
  if (is_host_read(function.name()) || is_copy_between_devices(function)) {
    note(function.name());
  }
  return nullptr;
}

} // namespace

extern "C" {

void graph_free_text(char* text) {
  ::free(text);
}

// The names under which functions of libtorch_cuda are looked up, one per line.
const char* graph_names() {
  static const std::string names = std::string(kConstruct) + "\n" + kDestroy + "\n" + kCaptureBegin + "\n" + kCaptureEnd + "\n" + kReplay;
  return names.c_str();
}

// A graph without work, of a device; libtorch_cuda has to be loaded.
char* graph_new(int device, Graph** out) {
  return guarded([&] { *out = new Graph(device); });
}

void graph_free(Graph* graph) {
  ::free(guarded([&] { delete graph; }));
}

// Has this thread work in the graph's stream, after what it has given its own stream.
char* graph_enter(Graph* graph) {
  return guarded([&] {
    graph->outer = cuda().getStream(graph->device);
    order(graph->outer, graph->stream);
    cuda().exchangeStream(graph->stream);
  });
}

// Has this thread work in its own stream again, after what it has given the graph's.
char* graph_leave(Graph* graph) {
  return guarded([&] {
    cuda().exchangeStream(graph->outer);
    order(graph->stream, graph->outer);
  });
}

// From here on, work that this thread gives the graph's stream is not done, but becomes the graph's.
char* graph_begin(const Graph* graph) {
  return guarded([&] {
    cuda().synchronizeDevice(graph->device.index());
    graph->capture_begin(graph->memory, MempoolId{0, 0}, kGlobal);
  });
}

// Until here. Fails where something was not to be captured.
char* graph_end(const Graph* graph) {
  return guarded([&] { graph->capture_end(graph->memory); });
}

// Does the graph's work once, after what this thread has given its stream.
char* graph_replay(const Graph* graph) {
  return guarded([&] { graph->replay(graph->memory); });
}

// Begins to count, in this thread, operators that have the host wait for a device; counts may be nested. What was counted before.
char* host_reads_begin(int64_t* before) {
  return guarded([&] {
    if (num_counts == 0) {
      auto callback = at::RecordFunctionCallback(on_operator).needsInputs(true).scopes({at::RecordScope::FUNCTION});
      observer = at::addThreadLocalCallback(callback);
      reads.clear();
      num_reads = 0;
    }
    ++num_counts;
    *before = num_reads;
  });
}

// A read that is none of an operator's.
void host_reads_note(const char* name) {
  if (num_counts > 0) {
    note(name);
  }
}

// Ends the innermost count, which began after `before` reads: how many there were since, and the first one's name or null; it
// lives until the next read.
int64_t host_reads_end(int64_t before, const char** first) {
  if (--num_counts == 0) {
    ::free(guarded([&] { at::removeCallback(observer); }));
  }
  const auto index = static_cast<size_t>(before);
  *first = index < reads.size() ? reads[index].c_str() : nullptr;
  return num_reads - before;
}

} // extern "C"
