// A small pool of threads: one section at a time, the caller takes part, workers spin briefly and then sleep.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

namespace sparsebench {

// Runs task(part) for every part in [0, parts) and returns when all are done; an exception of a task is thrown here.
// At most `threads` threads work, the caller being one of them. Sections asked for by several threads take turns.
// With parts <= threads every part has a thread of its own and all run at once, so they may meet at a Barrier.
void run_parts(int threads, int64_t parts, const std::function<void(int64_t)>& task);

// Nobody leaves wait() before all `count` parts of one section have entered it. Spins.
class Barrier {
 public:
  explicit Barrier(int count) : count_(count) {}
  void wait();

 private:
  const int count_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> round_{0};
};

// One turn of a waiting loop: cheap at first, yields the processor after some time.
void relax(unsigned turn);

}  // namespace sparsebench
