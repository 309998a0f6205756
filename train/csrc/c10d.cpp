// A C surface over libtorch's c10d, for train/src/process_group/ffi.rs: stores, process groups, collectives.
//
// Every function that can fail returns null, or a text that the caller frees with c10d_free_text. No exception leaves this
// file. Tensors are tch's (`at::Tensor*`) and the caller keeps owning them; a pending exchange holds references of its own.

#include <ATen/ATen.h>
#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/headeronly/version.h>

#include "guarded.h"

#include <dlfcn.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>

// The declarations below gloo/ were compared with this version of libtorch.
static_assert(TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR == 11, "c10d.cpp was written for libtorch 2.11");

namespace {

using Milliseconds = std::chrono::milliseconds;
using Group = c10::intrusive_ptr<c10d::Backend>;
using StoreRef = c10::intrusive_ptr<c10d::Store>;
using WorkRef = c10::intrusive_ptr<c10d::Work>;

std::vector<uint8_t> bytes_of(const uint8_t* data, size_t length) {
  return std::vector<uint8_t>(data, data + length);
}

// ProcessGroupNCCL is in libtorch_cuda, which is loaded at run time where there is a GPU, and its header wants those of CUDA and
// NCCL. So its two constructors are looked up by name, and everything else is a virtual function of c10d::Backend.
using OptionsRef = c10::intrusive_ptr<c10d::Backend::Options>;
using NewNcclOptions = void (*)(void* self, bool is_high_priority_stream);
// An intrusive_ptr is passed by reference to a copy, whatever its type: here ProcessGroupNCCL::Options.
using NewNcclGroup = void (*)(void* self, StoreRef store, int rank, int size, OptionsRef options);
constexpr const char* kNewNcclOptions = "_ZN4c10d16ProcessGroupNCCL7OptionsC1Eb";
constexpr const char* kNewNcclGroup =
    "_ZN4c10d16ProcessGroupNCCLC1EN3c1013intrusive_ptrINS_5StoreENS1_6detail34intrusive_target_default_null_typeIS3_EEEEii"
    "NS2_INS0_7OptionsENS5_IS8_EEEE";

// Both objects are smaller: 1112 and 248 bytes in libtorch 2.11.
constexpr size_t kNcclObjectBytes = 4096;

template <typename Function>
Function function_of_cuda(const char* name) {
  void* const found = ::dlsym(RTLD_DEFAULT, name);
  TORCH_CHECK(found != nullptr, "libtorch's CUDA library is not loaded, or of another version: it has no ", name);
  return reinterpret_cast<Function>(found);
}

// An object of libtorch_cuda, which `construct` makes in the memory that it is given.
template <typename Base, typename Construct>
c10::intrusive_ptr<Base> made_by_cuda(const Construct& construct) {
  void* const memory = ::operator new(kNcclObjectBytes);
  std::memset(memory, 0, kNcclObjectBytes);
  try {
    construct(memory);
  } catch (...) {
    ::operator delete(memory);
    throw;
  }
  // The only base class lies at offset 0; the virtual destructor frees the object.
  return c10::intrusive_ptr<Base>::unsafe_steal_from_new(static_cast<Base*>(memory));
}

// Poll interval of work on a GPU. An exchange of a bucket takes milliseconds.
constexpr std::chrono::microseconds kGlance(50);

} // namespace

extern "C" {

void c10d_free_text(char* text) {
  ::free(text);
}

// To be called before anything else here. Lost connections are reported by the caller; c10d would print stack traces of them,
// and, where torchrun has set the variable to 1, end the process before a rank is named: 2 only frees what failed.
void c10d_prepare() {
  c10::initLogging();
  FLAGS_caffe2_log_level = 3;
  ::setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "2", 1);
  // The recorder of exchanges is one for the process, and writes a map of its groups without a lock: groups of several threads
  // sometimes crash in it. Without entries it is off; a user who wants it sets the variable.
  ::setenv("TORCH_FR_BUFFER_SIZE", "0", 0);
}

// A connection to the store at host:port; with `serve`, the store itself is in this process. Port 0 takes a free one.
char* c10d_store_connect(const char* host, uint16_t port, bool serve, int64_t timeout_ms, StoreRef** out, uint16_t* bound) {
  return guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = serve;
    options.waitWorkers = false;
    options.timeout = Milliseconds(timeout_ms);
    auto store = c10::make_intrusive<c10d::TCPStore>(host, options);
    *bound = store->getPort();
    *out = new StoreRef(std::move(store));
  });
}

// Another connection to the same store.
char* c10d_store_clone(const StoreRef* store, StoreRef** out) {
  return guarded([&] { *out = new StoreRef((*store)->clone()); });
}

void c10d_store_free(StoreRef* store) {
  guarded([&] { delete store; });
}

char* c10d_store_set(const StoreRef* store, const char* key, const uint8_t* data, size_t length) {
  return guarded([&] { (*store)->set(key, bytes_of(data, length)); });
}

// Adds to a number under a key, which begins at 0; the sum.
char* c10d_store_add(const StoreRef* store, const char* key, int64_t more, int64_t* sum) {
  return guarded([&] { *sum = (*store)->add(key, more); });
}

// The value of a key, to be freed with c10d_free_text; null in `out` when there is none. It does not wait for one.
char* c10d_store_get(const StoreRef* store, const char* key, char** out, size_t* length) {
  return guarded([&] {
    *out = nullptr;
    if (!(*store)->check({key})) {
      return;
    }
    const auto value = (*store)->get(key);
    *length = value.size();
    *out = static_cast<char*>(::malloc(value.size() + 1));
    TORCH_CHECK(*out != nullptr, "out of memory");
    ::memcpy(*out, value.data(), value.size());
  });
}

// A group over Gloo that communicates from `address`, or from a network interface of that name. `store` is the group's own.
char* c10d_gloo_new(
    const StoreRef* store,
    const char* prefix,
    int rank,
    int size,
    const char* address,
    bool is_interface,
    int64_t timeout_ms,
    Group** out) {
  return guarded([&] {
    auto options = c10d::ProcessGroupGloo::Options::create(Milliseconds(timeout_ms));
    options->devices.push_back(
        is_interface ? c10d::ProcessGroupGloo::createDeviceForInterface(address)
                     : c10d::ProcessGroupGloo::createDeviceForHostname(address));
    auto prefixed = c10::make_intrusive<c10d::PrefixStore>(prefix, *store);
    Group group = c10::make_intrusive<c10d::ProcessGroupGloo>(prefixed, rank, size, std::move(options));
    *out = new Group(std::move(group));
  });
}

// The names under which functions of libtorch_cuda are looked up, one per line.
const char* c10d_nccl_names() {
  static const std::string names = std::string(kNewNcclOptions) + "\n" + kNewNcclGroup;
  return names.c_str();
}

// A group over NCCL, for tensors on GPUs; libtorch_cuda has to be loaded. The GPUs connect in the first exchange.
char* c10d_nccl_new(
    const StoreRef* store, const char* prefix, int rank, int size, int64_t timeout_ms, Group** out) {
  return guarded([&] {
    const auto new_options = function_of_cuda<NewNcclOptions>(kNewNcclOptions);
    const auto new_group = function_of_cuda<NewNcclGroup>(kNewNcclGroup);
    auto options = made_by_cuda<c10d::Backend::Options>([&](void* memory) { new_options(memory, false); });
    options->timeout = Milliseconds(timeout_ms);
    StoreRef prefixed = c10::make_intrusive<c10d::PrefixStore>(prefix, *store);
    *out = new Group(made_by_cuda<c10d::Backend>(
        [&](void* memory) { new_group(memory, prefixed, rank, size, options); }));
  });
}

// The group's own description: if its layout differed from the headers, these values would differ from those it was made with.
char* c10d_group_describe(const Group* group, int* rank, int* size, int64_t* timeout_ms, char** name) {
  return guarded([&] {
    *rank = (*group)->getRank();
    *size = (*group)->getSize();
    *timeout_ms = (*group)->getBackendOptions()->timeout.count();
    *name = ::strdup((*group)->getBackendName().c_str());
  });
}

// Ends all exchanges of the group, in this process; it cannot be used any more. May block: a GPU may be busy.
char* c10d_group_abort(const Group* group) {
  return guarded([&] { (*group)->abort(); });
}

// Shuts down a group without pending exchanges. May block, as above.
char* c10d_group_shutdown(const Group* group) {
  return guarded([&] { (*group)->shutdown(); });
}

void c10d_group_free(Group* group) {
  guarded([&] { delete group; });
}

// Starts to replace a tensor by its sum over all processes.
char* c10d_sum(const Group* group, const at::Tensor* tensor, WorkRef** out) {
  return guarded([&] {
    std::vector<at::Tensor> tensors{*tensor};
    *out = new WorkRef((*group)->allreduce(tensors));
  });
}

// Starts to replace a tensor, in the process `root` only, by its sum over all processes.
char* c10d_sum_for(const Group* group, const at::Tensor* tensor, int root, WorkRef** out) {
  return guarded([&] {
    std::vector<at::Tensor> tensors{*tensor};
    c10d::ReduceOptions options;
    options.rootRank = root;
    *out = new WorkRef((*group)->reduce(tensors, options));
  });
}

// Starts to replace a tensor by that of the process `root`.
char* c10d_broadcast(const Group* group, const at::Tensor* tensor, int root, WorkRef** out) {
  return guarded([&] {
    std::vector<at::Tensor> tensors{*tensor};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    *out = new WorkRef((*group)->broadcast(tensors, options));
  });
}

// Starts to fill `gathered`, whose first dimension is the process, with the tensors of all processes.
char* c10d_all_gather(const Group* group, const at::Tensor* gathered, const at::Tensor* tensor, WorkRef** out) {
  return guarded([&] {
    std::vector<std::vector<at::Tensor>> outputs{gathered->unbind(0)};
    std::vector<at::Tensor> inputs{*tensor};
    *out = new WorkRef((*group)->allgather(outputs, inputs));
  });
}

// As c10d_all_gather, for a group over NCCL, which would copy once more there.
char* c10d_all_gather_flat(const Group* group, const at::Tensor* gathered, const at::Tensor* tensor, WorkRef** out) {
  return guarded([&] {
    at::Tensor output = gathered->view({-1});
    at::Tensor input = tensor->view({-1});
    *out = new WorkRef((*group)->_allgather_base(output, input));
  });
}

// Waits for at most `timeout_ms` for work on a GPU, which would not block this thread; whether it is done. Fails when it has.
char* c10d_work_watch(const WorkRef* work, int64_t timeout_ms, bool* done) {
  return guarded([&] {
    const auto deadline = std::chrono::steady_clock::now() + Milliseconds(timeout_ms);
    *done = false;
    while (!(*work)->isCompleted()) {
      if (std::chrono::steady_clock::now() >= deadline) {
        return;
      }
      std::this_thread::sleep_for(kGlance);
    }
    if (const auto failure = (*work)->exception()) {
      std::rethrow_exception(failure);
    }
    // Done: it releases its tensors, and the caller's stream waits for its stream.
    (*work)->wait();
    *done = true;
  });
}

// Waits for at most `timeout_ms`; whether the work is done. Fails when the work has failed.
//
// `Work::wait` with a timeout is not used: when the timeout passes it throws, as it does for work that failed, and the two cannot be
// told apart when the work ends at that moment.
char* c10d_work_wait(const WorkRef* work, int64_t timeout_ms, bool* done) {
  constexpr auto kPause = std::chrono::microseconds(50);
  return guarded([&] {
    const auto deadline = std::chrono::steady_clock::now() + Milliseconds(timeout_ms);
    while (!(*work)->isCompleted()) {
      if (std::chrono::steady_clock::now() >= deadline) {
        *done = false;
        return;
      }
      std::this_thread::sleep_for(kPause);
    }
    (*work)->wait();
    *done = true;
  });
}

void c10d_work_free(WorkRef* work) {
  guarded([&] { delete work; });
}

} // extern "C"
