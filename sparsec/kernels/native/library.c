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
