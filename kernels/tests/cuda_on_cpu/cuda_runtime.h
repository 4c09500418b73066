// Stands in for NVIDIA's header of this name, so that a C++ compiler reads the CUDA sources and a CPU runs their kernels: one
// block after the other, each thread of a block a coroutine that runs until it waits for others, at __syncthreads or in a
// shuffle. Results, indices, alignment (16-byte words are moved by instructions that trap) and, with the sanitizers, memory
// errors are what they would be on a GPU; speed is not, nor are half-precision conversions and elementary functions, which are
// the CPU's. Shared memory keeps what the block before left in it, as a GPU's does.
//
// BCOS_CUDA_ON_CPU_ORDER says in which order the threads of a block run between two such points: "ascending" (default),
// "descending" or "shuffled". What depends on it is a race.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#define __global__
#define __host__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ static

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;  // of the thread that runs

namespace cuda_on_cpu {

constexpr unsigned kWarp = 32;
constexpr size_t kStack = size_t{1} << 18;

[[noreturn]] inline void fail(const char* message) {
  std::fprintf(stderr, "CUDA on the CPU: %s\n", message);
  std::abort();
}

// Those who wait for one another: a block, or a warp.
struct Meeting {
  unsigned members = 0, arrived = 0;
  uint64_t round = 0;
};

// Where to go on. The compiler's own jumps: the library's make a system call, or check that they only lead outwards.
struct Point {
  void* registers[5];
};

// A coroutine that runs one kernel after the other, each as another thread.
struct Thread {
  ucontext_t start;
  Point point;
  std::unique_ptr<char[]> stack{new char[kStack]};
  bool started = false, done = true;
  dim3 index;
};

class Block {
 public:
  void run(const dim3& size, const std::function<void()>& kernel) {
    const unsigned count = size.x * size.y * size.z;
    kernel_ = &kernel;
    while (threads_.size() < count) threads_.push_back(std::make_unique<Thread>());
    whole_ = {count, 0, 0};
    warps_.assign((count + kWarp - 1) / kWarp, {});
    words_.assign(warps_.size() * kWarp, 0);
    std::vector<unsigned> order(count);
    for (unsigned i = 0; i < count; ++i) {
      threads_[i]->index = dim3(i % size.x, i / size.x % size.y, i / size.x / size.y);
      threads_[i]->done = false;
      ++warps_[i / kWarp].members;
      order[i] = i;
    }
    for (unsigned left = count; left > 0;) {
      arrange(order);
      const uint64_t before = progress_;
      for (const unsigned i : order) {
        if (threads_[i]->done) continue;
        running_ = i;
        threadIdx = threads_[i]->index;
        resume(*threads_[i]);
        if (threads_[i]->done) --left, ++progress_;
      }
      if (progress_ == before) fail("all threads wait: some of a block or a warp never come to where the others are");
    }
  }

  // Every thread of the block.
  void meet() { meet(whole_); }

  // The value of the given lane of this thread's warp; all lanes must ask.
  uint64_t exchange(uint64_t word, unsigned lane) {
    const unsigned warp = running_ / kWarp;
    words_[running_] = word;
    meet(warps_[warp]);
    const uint64_t result = words_[warp * kWarp + lane];
    meet(warps_[warp]);  // until all have read
    return result;
  }

  unsigned lane() const { return running_ % kWarp; }

  static Block& current() {
    static Block block;
    return block;
  }

 private:
  static void enter() {
    Block& block = current();
    for (;;) {
      (*block.kernel_)();
      block.threads_[block.running_]->done = true;
      block.pause(*block.threads_[block.running_]);
    }
  }

  __attribute__((noinline)) void resume(Thread& thread) {
    if (__builtin_setjmp(scheduler_.registers)) return;
    leave(thread);
  }
  __attribute__((noinline)) void leave(Thread& thread) {
    if (thread.started) __builtin_longjmp(thread.point.registers, 1);
    thread.started = true;
    getcontext(&thread.start);
    thread.start.uc_stack.ss_sp = thread.stack.get();
    thread.start.uc_stack.ss_size = kStack;
    thread.start.uc_link = nullptr;
    makecontext(&thread.start, enter, 0);
    setcontext(&thread.start);
  }
  __attribute__((noinline)) void pause(Thread& thread) {
    if (__builtin_setjmp(thread.point.registers)) return;
    back();
  }
  __attribute__((noinline)) void back() { __builtin_longjmp(scheduler_.registers, 1); }

  void meet(Meeting& meeting) {
    const uint64_t round = meeting.round;
    if (++meeting.arrived == meeting.members) {
      meeting.arrived = 0;
      ++meeting.round, ++progress_;
      return;
    }
    const unsigned self = running_;
    while (meeting.round == round) pause(*threads_[self]);
  }

  void arrange(std::vector<unsigned>& order) {
    static const std::string wanted = [] {
      const char* value = std::getenv("BCOS_CUDA_ON_CPU_ORDER");
      return std::string(value ? value : "ascending");
    }();
    if (wanted == "shuffled")
      std::shuffle(order.begin(), order.end(), random_);
    else if (wanted == "descending")
      std::sort(order.rbegin(), order.rend());
    else if (wanted != "ascending")
      fail("BCOS_CUDA_ON_CPU_ORDER: expected ascending, descending or shuffled");
  }

  std::vector<std::unique_ptr<Thread>> threads_;
  std::vector<Meeting> warps_;
  std::vector<uint64_t> words_;  // what the lanes of a shuffle give each other
  Meeting whole_;
  Point scheduler_;
  const std::function<void()>* kernel_ = nullptr;
  unsigned running_ = 0;
  uint64_t progress_ = 0;
  std::mt19937 random_;
};

inline void run(const dim3& blocks, const dim3& threads, const std::function<void()>& kernel) {
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  if (threads.x * threads.y * threads.z > 1024 || blocks.x == 0 || blocks.x > INT32_MAX || blocks.y == 0 || blocks.y > 65535 ||
      blocks.z == 0 || blocks.z > 65535)
    fail("a grid or a block of a size that no GPU takes");
  gridDim = blocks, blockDim = threads;
  for (unsigned z = 0; z < blocks.z; ++z)
    for (unsigned y = 0; y < blocks.y; ++y)
      for (unsigned x = 0; x < blocks.x; ++x) {
        blockIdx = dim3(x, y, z);
        Block::current().run(threads, kernel);
      }
}

}  // namespace cuda_on_cpu

inline void __syncthreads() { cuda_on_cpu::Block::current().meet(); }

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
  if (mask != 0xffffffffu) cuda_on_cpu::fail("only shuffles of whole warps are known here");
  cuda_on_cpu::Block& block = cuda_on_cpu::Block::current();
  uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  word = block.exchange(word, block.lane() ^ static_cast<unsigned>(lanes));
  std::memcpy(&value, &word, sizeof(T));
  return value;
}

inline uint32_t __umulhi(uint32_t a, uint32_t b) { return static_cast<uint32_t>(uint64_t{a} * b >> 32); }
