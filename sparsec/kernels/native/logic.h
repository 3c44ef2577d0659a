/* The functions of SPARSEC_FUNCTIONS that give truth values or take them, on vectors. */
#ifndef SPARSEC_LOGIC_H
#define SPARSEC_LOGIC_H

#include "vector.h"

/* Not a number equals nothing. */
INLINE vec fn_equal(vec v, vec w, float a, float b) { return (void)a, (void)b, choose(v == w, splat(1.0f), (vec){0}); }
INLINE vec fn_greater(vec v, vec w, float a, float b) { return (void)a, (void)b, choose(v > w, splat(1.0f), (vec){0}); }
INLINE vec fn_less(vec v, vec w, float a, float b) { return (void)a, (void)b, choose(v < w, splat(1.0f), (vec){0}); }
/* What is not kept may be infinite, or not a number. */
INLINE vec fn_keep(vec v, vec w, float a, float b) { return (void)a, (void)b, choose(w == 0.0f, (vec){0}, v); }

#endif
