#include "instruction_set.h"

#include <cstdint>
#include <stdexcept>

#ifdef GPT2LAB_X86_KERNELS
#include <cpuid.h>
#endif
#ifdef GPT2LAB_DOTPROD_KERNELS
#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif
#endif
#ifdef GPT2LAB_AMX_KERNELS
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace gpt2lab {
namespace {

#ifdef GPT2LAB_X86_KERNELS
// Returns bit `bit` of register `which` (eax, ebx, ecx, edx) of CPUID leaf 7, which lists newer instructions.
bool has_feature(unsigned subleaf, int which, int bit) {
  unsigned registers[4] = {};
  return __get_cpuid_count(7, subleaf, &registers[0], &registers[1], &registers[2], &registers[3]) &&
         (registers[which] >> bit & 1);
}

// Returns register ecx of CPUID leaf 1, which lists older instructions.
unsigned older_features() {
  unsigned registers[4] = {};
  __get_cpuid(1, &registers[0], &registers[1], &registers[2], &registers[3]);
  return registers[2];
}

bool has_fma_and_f16c() { return (older_features() >> 12 & 1) && (older_features() >> 29 & 1); }

constexpr unsigned kAvxState = 0x06;  // components of the processor's state: the lower and upper halves of ymm
#if defined(__APPLE__)
constexpr unsigned kAvx512State = kAvxState;  // macOS saves the rest too, but says so only after its first use
#else
constexpr unsigned kAvx512State = 0xe6;  // also masks, upper halves of zmm, and zmm16 to zmm31
#endif

// Checks that the system saves these components when it switches between threads. Clang's builtin, which does so too,
// needs a library that is not linked on Windows.
bool saves_registers(unsigned components) {
  if (!(older_features() >> 27 & 1)) return false;  // no XGETBV
  unsigned low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & components) == components;
}
#endif

#ifdef GPT2LAB_EMULATED_TILES
bool has_matrix_unit() { return has_feature(1, 0, 5); }  // AVX-512's rounding to bfloat16
#elif defined GPT2LAB_AMX_KERNELS
constexpr long kTileData = 18;  // number of the matrix unit's registers among the processor's state components

// Checks for tiles, products of int8 and of bfloat16, AVX-512's rounding to bfloat16, and a kernel that saves tiles.
bool has_matrix_unit() {
  constexpr long kGetSupported = 0x1021;
  std::uint64_t supported = 0;
  return has_feature(0, 3, 22) && has_feature(0, 3, 24) && has_feature(0, 3, 25) && has_feature(1, 0, 5) &&
         syscall(SYS_arch_prctl, kGetSupported, &supported) == 0 && (supported >> kTileData & 1);
}
#endif

// Asks for the CPU state that the kernels need. Linux gives a process the registers of the matrix unit only on request;
// from then on its signal stacks must be larger, so only a process that computes with the unit asks.
bool may_use(const Kernels& kernels) {
#if defined GPT2LAB_AMX_KERNELS && !defined GPT2LAB_EMULATED_TILES
  constexpr long kRequestPermission = 0x1023;
  if (&kernels == &amx_kernels()) return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#endif
  (void)kernels;
  return true;
}

#ifdef GPT2LAB_DOTPROD_KERNELS
bool has_dot_products() {
#if defined(__linux__)
  return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#else
  return true;  // every Mac with an Arm processor
#endif
}
#endif

}  // namespace

std::vector<const Kernels*> available_kernels() {
  std::vector<const Kernels*> found;
#ifdef GPT2LAB_X86_KERNELS
  const bool avx2 = saves_registers(kAvxState) && has_fma_and_f16c() && has_feature(0, 1, 5);
  const bool avx512 = avx2 && saves_registers(kAvx512State) && has_feature(0, 1, 16) && has_feature(0, 1, 17) &&
                      has_feature(0, 1, 30) && has_feature(0, 1, 31);  // F, DQ, BW, VL
  const bool avx512vnni = avx512 && has_feature(0, 2, 11);
#ifdef GPT2LAB_AMX_KERNELS
  if (avx512vnni && has_matrix_unit()) found.push_back(&amx_kernels());
#endif
  if (avx512vnni) found.push_back(&avx512vnni_kernels());
  if (avx512) found.push_back(&avx512_kernels());
#ifdef GPT2LAB_AVXVNNI_KERNELS
  if (avx2 && has_feature(1, 0, 4)) found.push_back(&avxvnni_kernels());
#endif
  if (avx2) found.push_back(&avx2_kernels());
#endif
#ifdef GPT2LAB_DOTPROD_KERNELS
  if (has_dot_products()) found.push_back(&dotprod_kernels());
#endif
  found.push_back(&baseline_kernels());
  return found;
}

const Kernels& choose_kernels(const std::string& name) {
  std::string names;
  for (const Kernels* kernels : available_kernels()) {
    if ((name.empty() || name == kernels->name) && may_use(*kernels)) return *kernels;
    names += names.empty() ? kernels->name : std::string(", ") + kernels->name;
  }
  throw std::invalid_argument("no instruction set '" + name + "' on this machine; it has " + names);
}

const TileKernels* tile_kernels(const Kernels& kernels) {
#ifdef GPT2LAB_AMX_KERNELS
  if (&kernels == &amx_kernels()) return &amx_tile_kernels();
#endif
  (void)kernels;
  return nullptr;
}

std::string cpu_vendor() {
#ifdef GPT2LAB_X86_KERNELS
  unsigned highest = 0, name[3] = {};
  if (__get_cpuid(0, &highest, &name[0], &name[2], &name[1]))
    return std::string(reinterpret_cast<const char*>(name), sizeof name);
#endif
  return "";
}

}  // namespace gpt2lab
