/* The table of the kernels of one instruction set. */
#include "vector.h"

#define SPARSEC_ENTRY(kernel) {#kernel, NAME(kernel), SIZE(kernel)},
const sparsec_kernel JOIN(sparsec, _kernels_, SPARSEC_ISA)[SPARSEC_KERNEL_COUNT] = {SPARSEC_KERNELS(SPARSEC_ENTRY)};
