// A C surface over libtorch's c10d, for train/src/processes/ffi.rs: stores, process groups, collectives.
//
// Every function that can fail returns null, or a text that the caller frees with c10d_free_text. No exception leaves this
// file. Tensors are tch's (`at::Tensor*`) and keep belonging to the caller; what is in flight holds references of its own.

#include <ATen/ATen.h>
#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/headeronly/version.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <thread>

// The declarations below gloo/ were compared with this version of libtorch.
static_assert(TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR == 11, "c10d.cpp was written for libtorch 2.11");

namespace {

using Milliseconds = std::chrono::milliseconds;
using Group = c10::intrusive_ptr<c10d::Backend>;
using StoreRef = c10::intrusive_ptr<c10d::Store>;
using WorkRef = c10::intrusive_ptr<c10d::Work>;

char* text_of(const char* what) {
  return ::strdup(what);
}

// Runs `body`; the text of what it throws, or null.
template <typename Body>
char* guarded(const Body& body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    return text_of(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return text_of(error.what());
  } catch (...) {
    return text_of("an exception without a text");
  }
}

std::vector<uint8_t> bytes_of(const uint8_t* data, size_t length) {
  return std::vector<uint8_t>(data, data + length);
}

} // namespace

extern "C" {

void c10d_free_text(char* text) {
  ::free(text);
}

// Lost connections are reported by the caller; c10d would print stack traces of them.
void c10d_quiet() {
  c10::initLogging();
  FLAGS_caffe2_log_level = 3;
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

// A group over Gloo that talks from `address`, or from a network interface of that name. `store` is the group's own.
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

// What the group says of itself: were its layout another than the headers say, this would not be what it was made with.
char* c10d_group_describe(const Group* group, int* rank, int* size, int64_t* timeout_ms, char** name) {
  return guarded([&] {
    *rank = (*group)->getRank();
    *size = (*group)->getSize();
    *timeout_ms = (*group)->getBackendOptions()->timeout.count();
    *name = text_of((*group)->getBackendName().c_str());
  });
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

// Waits for at most `timeout_ms`; whether the work is done. Fails when the work has failed.
char* c10d_work_wait(const WorkRef* work, int64_t timeout_ms, bool* done) {
  return guarded([&] {
    try {
      (*work)->wait(Milliseconds(timeout_ms));
      *done = true;
    } catch (...) {
      *done = false;
      // It throws as well when the time is over.
      if ((*work)->isCompleted()) {
        throw;
      }
    }
  });
}

void c10d_work_free(WorkRef* work) {
  guarded([&] { delete work; });
}

} // extern "C"
