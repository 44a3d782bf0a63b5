// What this machine can do at most: read memory, and multiply. Compiled by probes.py with -march=native.

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifdef __x86_64__
#include <immintrin.h>
#endif

enum { MOST_THREADS = 256, LINE_BYTES = 64, LINES_PER_TURN = 4, TURN_BYTES = LINE_BYTES * LINES_PER_TURN };

typedef uint64_t Line __attribute__((vector_size(LINE_BYTES), may_alias));

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + 1e-9 * time.tv_nsec;
}

typedef struct Work {
  void (*run)(const struct Work*);
  const char* data;
  size_t bytes;
  int streams;
  long repetitions;
  int passes;
  pthread_barrier_t* barrier;
  double seconds;
} Work;

static volatile uint64_t sink;

// One thread's part is cut into `streams` pieces that are read side by side: a hardware prefetcher that follows one
// stream does not always keep a core's whole share of the memory busy.
static void read_memory(const Work* work) {
  Line sums[LINES_PER_TURN] = {{0}};
  const size_t piece = work->bytes / work->streams / TURN_BYTES * TURN_BYTES;
  for (size_t offset = 0; offset < piece; offset += TURN_BYTES)
    for (int stream = 0; stream < work->streams; ++stream) {
      const Line* lines = (const Line*)(work->data + stream * piece + offset);
      for (int line = 0; line < LINES_PER_TURN; ++line) sums[line] += lines[line];
    }
  sums[0] += sums[1] + sums[2] + sums[3];
  sink += sums[0][0] + sums[0][1] + sums[0][2] + sums[0][3] + sums[0][4] + sums[0][5] + sums[0][6] + sums[0][7];
}

#define TWELVE(step) step(0) step(1) step(2) step(3) step(4) step(5) step(6) step(7) step(8) step(9) step(10) step(11)
// Twelve independent accumulators hide the latency; assembly, because a compiler would drop products of constants.
#define MULTIPLY(name, instruction, Vector, constraint)                                                        \
  static void name(const Work* work) {                                                                         \
    Vector a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0}, a4 = {0}, a5 = {0}, a6 = {0}, a7 = {0}, a8 = {0}, a9 = {0}, \
           a10 = {0}, a11 = {0}, factor = {0};                                                                 \
    for (long done = 0; done < work->repetitions; ++done) {                                                    \
      TWELVE(instruction)                                                                                      \
    }                                                                                                          \
  }
#define STEP(text, constraint, k) __asm__ volatile(text " %1, %1, %0" : "+" constraint(a##k) : constraint(factor));

#ifdef __AVX512F__
#define FMA_STEP(k) STEP("vfmadd231ps", "v", k)
MULTIPLY(multiply_fp32, FMA_STEP, __m512, "v")
enum { FP32_FLOPS = 12 * 32 };
#elif defined(__FMA__)
#define FMA_STEP(k) STEP("vfmadd231ps", "x", k)
MULTIPLY(multiply_fp32, FMA_STEP, __m256, "x")
enum { FP32_FLOPS = 12 * 16 };
#endif
#ifdef __AVX512BF16__
#define BF16_STEP(k) STEP("vdpbf16ps", "v", k)
MULTIPLY(multiply_bf16, BF16_STEP, __m512, "v")
enum { BF16_FLOPS = 12 * 64 };
#endif

#if defined(__AMX_BF16__) && defined(SYS_arch_prctl)
#define HAS_AMX
enum { AMX_FLOPS = 4 * 2 * 16 * 16 * 32 };
static void multiply_amx(const Work* work) {
  enum { ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
  if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) != 0) return;
  struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes_per_row[16];
    uint8_t rows[16];
  } shape = {.palette = 1};
  for (int tile = 0; tile < 8; ++tile) shape.bytes_per_row[tile] = 64, shape.rows[tile] = 16;
  __asm__ volatile("" ::: "memory");  // gcc 12 believes that the next line reads 8 bytes only
  _tile_loadconfig(&shape);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (long done = 0; done < work->repetitions; ++done) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
}
#endif

static void* run_passes(void* argument) {
  Work* work = argument;
  for (int pass = 0; pass < work->passes; ++pass) {
    pthread_barrier_wait(work->barrier);
    const double start = now();
    work->run(work);
    pthread_barrier_wait(work->barrier);
    const double seconds = now() - start;
    if (pass == 0 || seconds < work->seconds) work->seconds = seconds;
  }
  return NULL;
}

// Seconds of the fastest of `passes`, in which every thread does its part.
static double fastest(Work work, int threads) {
  if (threads < 1 || threads > MOST_THREADS) return 0;
  pthread_barrier_t barrier;
  pthread_barrier_init(&barrier, NULL, threads);
  pthread_t ids[MOST_THREADS];
  Work works[MOST_THREADS];
  work.bytes /= threads;
  work.barrier = &barrier;
  for (int thread = 0; thread < threads; ++thread) {
    works[thread] = work;
    works[thread].data += thread * (work.bytes / LINE_BYTES * LINE_BYTES);
    pthread_create(&ids[thread], NULL, run_passes, &works[thread]);
  }
  for (int thread = 0; thread < threads; ++thread) pthread_join(ids[thread], NULL);
  pthread_barrier_destroy(&barrier);
  return works[0].seconds;
}

// Bytes per second. `data` is aligned to a cache line.
double read_rate(const char* data, size_t bytes, int threads, int streams, int passes) {
  const double seconds =
      fastest((Work){.run = read_memory, .data = data, .bytes = bytes, .streams = streams, .passes = passes}, threads);
  return seconds > 0 ? bytes / seconds : 0;
}

typedef struct {
  const char* name;
  void (*run)(const Work*);
  int flops;  // of one repetition
} Instruction;

static const Instruction INSTRUCTIONS[] = {
#ifdef __FMA__
    {"fma", multiply_fp32, FP32_FLOPS},
#endif
#ifdef __AVX512BF16__
    {"vdpbf16ps", multiply_bf16, BF16_FLOPS},
#endif
#ifdef HAS_AMX
    {"amx", multiply_amx, AMX_FLOPS},
#endif
    {NULL, NULL, 0},
};

// Floating-point operations per second; 0 where the processor lacks the instruction.
double multiply_rate(const char* name, int threads, long repetitions, int passes) {
  for (const Instruction* instruction = INSTRUCTIONS; instruction->name; ++instruction)
    if (strcmp(name, instruction->name) == 0) {
      const double seconds =
          fastest((Work){.run = instruction->run, .repetitions = repetitions, .passes = passes}, threads);
      return seconds > 0 ? (double)instruction->flops * repetitions * threads / seconds : 0;
    }
  return 0;
}
