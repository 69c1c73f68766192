// Stands in for the CUDA toolkit's header, so that the host compiler builds a .cu file as it is. Blocks run one after
// another. The threads of a block are coroutines: each runs until it waits for others, so a kernel gives the same
// result every time. ThreadSanitizer sees each as a thread of its own that only barriers, shuffles and the launch
// synchronise.
//
// What a GPU would refuse or leave undefined is an error of the launch here: a grid, a block or shared memory beyond
// the limits, a load or store at an address that its type does not allow, threads that wait for ever. Shared memory
// holds 0xff bytes (NaN, -1) when a block starts. There is no dynamic shared memory and no warp mask but that of all
// lanes.
#pragma once

#include <ucontext.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
    dim3() = default;
    explicit dim3(unsigned x, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

using cudaStream_t = struct cudaStream*;
enum cudaError_t {  // the numbers of the toolkit
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorLaunchTimeout = 702,
    cudaErrorMisalignedAddress = 716,
};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
};

// All state here is thread_local: .bss is left to shared memory, see `shared_bytes`. And static: libraries share what
// is inline.
static thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

extern "C" {
#ifdef __SANITIZE_THREAD__
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
#else
inline void* __tsan_get_current_fiber() { return nullptr; }
inline void* __tsan_create_fiber(unsigned) { return nullptr; }
inline void __tsan_destroy_fiber(void*) {}
inline void __tsan_switch_to_fiber(void*, unsigned) {}
inline void __tsan_acquire(void*) {}
inline void __tsan_release(void*) {}
#endif
// Bounds of .bss, which the linker defines.
extern char __bss_start[] __attribute__((visibility("hidden"))), _end[] __attribute__((visibility("hidden")));
}

// The emulation's own state is no business of the race check.
#define EMULATION_UNCHECKED [[gnu::no_sanitize("thread")]]

namespace emulation {

constexpr unsigned warp_size = 32, most_threads = 1024, most_block_z = 64, most_grid_x = 2147483647,
                   most_grid_yz = 65535;
constexpr size_t most_shared_bytes = 48 * 1024, stack_bytes = 256 * 1024;

// Threads that arrive go on once all have that are still running. Rounds synchronise through two addresses in turn:
// what a thread does after round n must not be ordered before what a slower one does after the same round.
struct Barrier {
    unsigned running = 0, arrived = 0, round = 0;
    char synchronised[2];
};

struct Warp {
    Barrier barrier;
    unsigned shuffles[warp_size] = {};
    uint64_t lanes[2][warp_size];
};

struct Thread {
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[stack_bytes]};
    void* fiber = __tsan_create_fiber(0);
    dim3 index;
    Warp* warp = nullptr;
    Barrier* awaited = nullptr;
    unsigned round = 0;
    bool finished = false;

    ~Thread() { __tsan_destroy_fiber(fiber); }
};

struct State {
    Thread* current = nullptr;  // null outside of a kernel
    ucontext_t launcher;
    void* launching_fiber = nullptr;
    Barrier block;
    const std::function<void()>* kernel = nullptr;
    cudaError_t fault = cudaSuccess;
    char started, finished;  // addresses to synchronise through
    int launches = 0, failing_launch = 0, failure = 0;
};
static thread_local State state;

EMULATION_UNCHECKED inline void leave() {
    __tsan_switch_to_fiber(state.launching_fiber, 1);  // 1: the switch itself synchronises nothing
    swapcontext(&state.current->context, &state.launcher);
}

EMULATION_UNCHECKED inline void resume(Thread& thread) {
    state.current = &thread;
    threadIdx = thread.index;
    __tsan_switch_to_fiber(thread.fiber, 1);
    swapcontext(&state.launcher, &thread.context);
    state.current = nullptr;
}

// Ends the launch with an error, from within a kernel.
EMULATION_UNCHECKED inline void fail(cudaError_t error, const char* why) {
    std::fprintf(stderr, "CUDA emulation: %s\n", why);
    if (!state.current) std::abort();
    state.fault = error;
    leave();
}

EMULATION_UNCHECKED inline void go_on_if_complete(Barrier& barrier) {
    if (barrier.arrived == 0 || barrier.arrived < barrier.running) return;
    barrier.arrived = 0;
    ++barrier.round;
}

EMULATION_UNCHECKED inline void arrive_and_wait(Barrier& barrier) {
    Thread& thread = *state.current;
    thread.awaited = &barrier;
    thread.round = barrier.round;
    ++barrier.arrived;
    go_on_if_complete(barrier);
    if (barrier.round == thread.round) leave();
}

EMULATION_UNCHECKED inline void synchronise(Barrier& barrier) {
    char* synchronised = &barrier.synchronised[barrier.round % 2];
    __tsan_release(synchronised);
    arrive_and_wait(barrier);
    __tsan_acquire(synchronised);
}

// The lanes of a warp meet, but order no memory: a shuffle is no __syncwarp.
EMULATION_UNCHECKED inline uint64_t shuffle(uint64_t bits, int source) {
    const unsigned lane = threadIdx.x % warp_size;
    Warp& warp = *state.current->warp;
    uint64_t* lanes = warp.lanes[warp.shuffles[lane]++ % 2];  // the other ones may still be read
    lanes[lane] = bits;
    arrive_and_wait(warp.barrier);
    return lanes[static_cast<unsigned>(source) % warp_size];
}

EMULATION_UNCHECKED inline void thread_main() {
    __tsan_acquire(&state.started);
    (*state.kernel)();
    __tsan_release(&state.finished);
    Thread& thread = *state.current;
    thread.finished = true;
    for (Barrier* barrier : {&thread.warp->barrier, &state.block}) {  // on a GPU too nobody waits for them
        --barrier->running;
        go_on_if_complete(*barrier);
    }
    leave();
}

// Shared variables are all that .bss holds: GCC ignores a section attribute on static variables of templates.
inline size_t shared_bytes() { return static_cast<size_t>(_end - __bss_start); }

EMULATION_UNCHECKED inline void run_block(std::deque<Thread>& threads) {
    const unsigned count = static_cast<unsigned>(threads.size());
    std::deque<Warp> warps((count + warp_size - 1) / warp_size);
    state.block = {};
    for (unsigned i = 0; i < count; ++i) {
        Thread& thread = threads[i];
        thread.index = dim3(i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y);
        thread.warp = &warps[i / warp_size];
        thread.awaited = nullptr;
        thread.finished = false;
        ++thread.warp->barrier.running;
        ++state.block.running;
        getcontext(&thread.context);
        thread.context.uc_stack = {thread.stack.get(), 0, stack_bytes};
        makecontext(&thread.context, thread_main, 0);
    }
    std::memset(__bss_start, 0xff, shared_bytes());
    __tsan_release(&state.started);
    for (unsigned left = count; left > 0 && !state.fault;) {
        bool stuck = true;
        for (Thread& thread : threads) {
            if (state.fault || thread.finished || (thread.awaited && thread.awaited->round == thread.round)) continue;
            resume(thread);
            stuck = false;
            left -= thread.finished;
        }
        if (stuck) {
            std::fprintf(stderr, "CUDA emulation: threads wait at different barriers for ever\n");
            state.fault = cudaErrorLaunchTimeout;
        }
    }
    __tsan_acquire(&state.finished);
}

inline cudaError_t check_limits(const cudaLaunchConfig_t& config) {
    const auto &grid = config.gridDim, &block = config.blockDim;
    const bool some = grid.x && grid.y && grid.z && block.x && block.y && block.z;
    const size_t threads = size_t{block.x} * block.y * block.z;
    if (!some || threads > most_threads || block.z > most_block_z || grid.x > most_grid_x || grid.y > most_grid_yz ||
        grid.z > most_grid_yz)
        return cudaErrorInvalidConfiguration;
    // Of all kernels of a source together, so a little stricter than the limit is.
    return shared_bytes() + config.dynamicSmemBytes > most_shared_bytes ? cudaErrorInvalidValue : cudaSuccess;
}

inline cudaError_t launch(const cudaLaunchConfig_t& config, const std::function<void()>& kernel) {
    ++state.launches;
    if (state.failing_launch)
        return state.launches == state.failing_launch ? static_cast<cudaError_t>(state.failure) : cudaSuccess;
    if (const cudaError_t error = check_limits(config)) return error;
    state.kernel = &kernel;
    state.launching_fiber = __tsan_get_current_fiber();
    state.fault = cudaSuccess;
    gridDim = config.gridDim;
    blockDim = config.blockDim;
    std::deque<Thread> threads(size_t{blockDim.x} * blockDim.y * blockDim.z);
    const uint64_t blocks = uint64_t{gridDim.x} * gridDim.y * gridDim.z;
    for (uint64_t i = 0; i < blocks && !state.fault; ++i) {
        const uint64_t row = i / gridDim.x;
        blockIdx = dim3(static_cast<unsigned>(i % gridDim.x), static_cast<unsigned>(row % gridDim.y),
                        static_cast<unsigned>(row / gridDim.y));
        run_block(threads);
    }
    return state.fault;
}

}  // namespace emulation

extern "C" {

// Makes the `which`th launch from now on fail with `error`, and nothing run until the next call; 0: all run.
[[gnu::used]] inline void emulation_fail_launch(int64_t which, int64_t error) {
    emulation::state.launches = 0;
    emulation::state.failing_launch = static_cast<int>(which);
    emulation::state.failure = static_cast<int>(error);
}

// Launches since the last `emulation_fail_launch`, failed ones too.
[[gnu::used]] inline int64_t emulation_launches() { return emulation::state.launches; }

// What -fsanitize=alignment calls.
[[gnu::used]] inline void __ubsan_handle_type_mismatch_v1(void*, void*) {
    emulation::fail(cudaErrorMisalignedAddress, "a load or store at an address that its type does not allow");
}
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               const Arguments&... arguments) {
    return emulation::launch(*config, [&] { kernel(arguments...); });
}

inline void __syncthreads() { emulation::synchronise(emulation::state.block); }

inline void __syncwarp() { emulation::synchronise(emulation::state.current->warp->barrier); }

template <class Number>
Number atomicAdd(Number* at, Number added) {
    return std::atomic_ref<Number>(*at).fetch_add(added, std::memory_order_relaxed);  // synchronises nothing else
}

template <class Value>
Value __shfl_sync(unsigned, Value value, int source) {
    static_assert(sizeof(Value) <= 8);
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    bits = emulation::shuffle(bits, source);
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

template <class Value>
Value __shfl_xor_sync(unsigned mask, Value value, int lane_mask) {
    return __shfl_sync(mask, value, static_cast<int>(threadIdx.x % emulation::warp_size) ^ lane_mask);
}
