#include "threads.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace sparsebench {

void relax(unsigned turn) {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#endif
  if (turn >= 4096) std::this_thread::yield();
}

void Barrier::wait() {
  const int round = round_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == count_) {
    arrived_.store(0, std::memory_order_relaxed);
    round_.store(round + 1, std::memory_order_release);
    return;
  }
  for (unsigned turn = 0; round_.load(std::memory_order_acquire) == round; ++turn) relax(turn);
}

namespace {

// About 50 microseconds: longer than the gap between two matrices of a token, far shorter than a person's patience.
constexpr unsigned kSpins = 2048;

class Workers {
 public:
  void run(int threads, int64_t parts, const std::function<void(int64_t)>& task) {
    std::lock_guard<std::mutex> turn(sections_);
    const int helpers = static_cast<int>(std::min<int64_t>(threads, parts)) - 1;
    grow(helpers);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      task_ = &task;
      parts_ = parts;
      wanted_ = helpers;
      next_.store(0, std::memory_order_relaxed);
      busy_.store(helpers, std::memory_order_relaxed);
      error_ = nullptr;
      section_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    work();
    for (unsigned spin = 0; busy_.load(std::memory_order_acquire) != 0; ++spin) relax(spin);
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void grow(int helpers) {
    while (static_cast<int>(threads_.size()) < helpers) {
      const int index = static_cast<int>(threads_.size());
      const uint64_t seen = section_.load(std::memory_order_relaxed);
      threads_.emplace_back([this, index, seen] { loop(index, seen); });
      threads_.back().detach();
    }
  }

  void work() {
    for (;;) {
      const int64_t part = next_.fetch_add(1, std::memory_order_relaxed);
      if (part >= parts_) return;
      try {
        (*task_)(part);
      } catch (...) {
        std::lock_guard<std::mutex> lock(errors_);
        if (!error_) error_ = std::current_exception();
      }
    }
  }

  void loop(int index, uint64_t seen) {
    for (;;) {
      for (unsigned spin = 0; spin < kSpins && section_.load(std::memory_order_acquire) == seen; ++spin) relax(spin);
      bool mine;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return section_.load(std::memory_order_acquire) != seen; });
        seen = section_.load(std::memory_order_acquire);
        mine = index < wanted_;
      }
      if (!mine) continue;
      work();
      busy_.fetch_sub(1, std::memory_order_acq_rel);
    }
  }

  std::mutex sections_, mutex_, errors_;
  std::condition_variable wake_;
  std::vector<std::thread> threads_;
  const std::function<void(int64_t)>* task_ = nullptr;
  int64_t parts_ = 0;
  int wanted_ = 0;
  std::exception_ptr error_;
  alignas(64) std::atomic<uint64_t> section_{0};
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<int> busy_{0};
};

// Never destroyed: detached threads may still wait in it while the process ends. After a fork the child has no worker
// threads, so it starts with a pool of its own.
std::atomic<Workers*> pool{nullptr};

Workers& workers() {
  static std::once_flag once;
  std::call_once(once, [] {
    pool.store(new Workers);
#if defined(__unix__) || defined(__APPLE__)
    pthread_atfork(nullptr, nullptr, [] { pool.store(new Workers); });
#endif
  });
  return *pool.load();
}

}  // namespace

void run_parts(int threads, int64_t parts, const std::function<void(int64_t)>& task) {
  if (parts <= 0) return;
  if (threads <= 1 || parts == 1) {
    for (int64_t part = 0; part < parts; ++part) task(part);
    return;
  }
  workers().run(threads, parts, task);
}

}  // namespace sparsebench
