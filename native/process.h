// The number of this process, by which an object notices that fork() has copied it into another one.
#pragma once

#if !defined(_WIN32)
#include <unistd.h>
#endif

namespace gpt2lab {

inline long process_id() {
#if defined(_WIN32)
  return 1;  // no fork()
#else
  return getpid();
#endif
}

}  // namespace gpt2lab
