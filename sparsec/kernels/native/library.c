/* What the library holds, and what of it this processor can run. */
#include "kernels.h"

enum { BASELINE = 1, AVX2 = 2, AVX512 = 4, NEON = 8 };

SPARSEC_API int32_t sparsec_abi(void) { return SPARSEC_ABI; }

/* The instruction sets that were compiled and that this processor has, as a sum of the values above. */
SPARSEC_API int32_t sparsec_isas(void) {
    int32_t found = 0;
#ifdef SPARSEC_HAS_BASELINE
    found |= BASELINE;
#endif
#ifdef SPARSEC_HAS_NEON
    found |= NEON;
#endif
#if defined(SPARSEC_HAS_AVX2) || defined(SPARSEC_HAS_AVX512)
    __builtin_cpu_init();
#endif
#ifdef SPARSEC_HAS_AVX2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found |= AVX2;
#endif
#ifdef SPARSEC_HAS_AVX512
    if (__builtin_cpu_supports("avx512f")) found |= AVX512;
#endif
    return found;
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
