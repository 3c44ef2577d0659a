/* What the library holds, what of it this processor can run, and what it was compiled with. */
#include "kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

enum { BASELINE = 1, AVX2 = 2, AVX512 = 4, NEON = 8 };

SPARSEC_API int32_t sparsec_abi(void) { return SPARSEC_ABI; }

/* The instruction sets that were compiled, as a sum of the values above. */
SPARSEC_API int32_t sparsec_compiled(void) {
    int32_t found = 0;
#ifdef SPARSEC_HAS_BASELINE
    found |= BASELINE;
#endif
#ifdef SPARSEC_HAS_AVX2
    found |= AVX2;
#endif
#ifdef SPARSEC_HAS_AVX512
    found |= AVX512;
#endif
#ifdef SPARSEC_HAS_NEON
    found |= NEON;
#endif
    return found;
}

/*
 * Those that the processor has beyond what every processor of its kind has. Not by __builtin_cpu_supports: the runtime library
 * of some compilers answers it with no.
 */
static int32_t processor(void) {
    int32_t found = 0;
#if defined(__x86_64__)
    enum { YMM = 0x6, ZMM = 0xe6 }; /* the registers that the system saves, in XCR0 */
    unsigned a, b, c, d, saved, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_FMA)) return 0;
    __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    if ((saved & YMM) == YMM && (b & bit_AVX2)) found |= AVX2;
    if ((saved & ZMM) == ZMM && (b & bit_AVX512F)) found |= AVX512;
#endif
    return found;
}

/* The instruction sets that were compiled and that this processor has. */
SPARSEC_API int32_t sparsec_isas(void) { return sparsec_compiled() & (BASELINE | NEON | processor()); }

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

/* The compiler's name and version. */
SPARSEC_API const char *sparsec_compiler(void) {
#if defined(__clang__)
    return "clang " TEXT(__clang_major__) "." TEXT(__clang_minor__) "." TEXT(__clang_patchlevel__);
#else
    return "gcc " TEXT(__GNUC__) "." TEXT(__GNUC_MINOR__) "." TEXT(__GNUC_PATCHLEVEL__);
#endif
}

#define SPARSEC_TABLE(isa) extern const sparsec_kernel sparsec_kernels_##isa[];
SPARSEC_TABLE(baseline)
SPARSEC_TABLE(neon)
SPARSEC_TABLE(avx2)
SPARSEC_TABLE(avx512)

/* The kernels for one instruction set, in the order of SPARSEC_KERNELS; null where it was not compiled. */
SPARSEC_API const sparsec_kernel *sparsec_kernels(int32_t isa) {
    switch (isa) {
#ifdef SPARSEC_HAS_BASELINE
        case BASELINE: return sparsec_kernels_baseline;
#endif
#ifdef SPARSEC_HAS_NEON
        case NEON: return sparsec_kernels_neon;
#endif
#ifdef SPARSEC_HAS_AVX2
        case AVX2: return sparsec_kernels_avx2;
#endif
#ifdef SPARSEC_HAS_AVX512
        case AVX512: return sparsec_kernels_avx512;
#endif
    }
    return NULL;
}

/* How many bytes of scratch memory a step takes in each thread. */
SPARSEC_API int64_t sparsec_scratch(const sparsec_kernel *kernels, const sparsec_step *step) {
    return kernels[step->kernel].bytes(step);
}
