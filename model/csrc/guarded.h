// Exceptions of C++ as texts. No exception may leave a function that Rust calls.
#pragma once

#include <c10/util/Exception.h>

#include <cstring>
#include <exception>

// Runs `body`; the text of what it throws, which the caller frees, or null.
template <typename Body>
char* guarded(const Body& body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    return ::strdup(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return ::strdup(error.what());
  } catch (...) {
    return ::strdup("an exception without a text");
  }
}
