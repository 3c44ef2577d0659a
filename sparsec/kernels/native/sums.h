/* Sums and the greatest of floats that follow one another. */
#ifndef SPARSEC_SUMS_H
#define SPARSEC_SUMS_H

#include "vector.h"

/* The error of a sum grows with the number of its terms, so long sums are sums of sums of so many. */
enum { TERMS = 1024 };

/* Several sums at once, since each addition waits for the one before in its sum. */
static float short_sum(const float *x, int64_t count) {
    vec a = {0}, b = a, c = a, d = a;
    int64_t i = 0;
    for (; i + 4 * LANES <= count; i += 4 * LANES) {
        a += load(x + i);
        b += load(x + i + LANES);
        c += load(x + i + 2 * LANES);
        d += load(x + i + 3 * LANES);
    }
    for (; i + LANES <= count; i += LANES) a += load(x + i);
    if (i < count) b += load_lanes(x + i, lanes_of(0, (int)(count - i)));
    return total((a + b) + (c + d));
}

static double sum_of(const float *x, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i += TERMS) sum += short_sum(x + i, count - i < TERMS ? count - i : TERMS);
    return sum;
}

/* Not a number where any is not. */
static float greatest_of(const float *x, int64_t count) {
    float found = x[0];
    if (count < LANES) {
        for (int64_t i = 1; i < count; i++) found = x[i] > found || x[i] != x[i] ? x[i] : found;
        return found;
    }
    vec best = load(x + count - LANES);
    for (int64_t i = 0; i + LANES <= count; i += LANES) best = maximum(best, load(x + i));
    for (int i = 0; i < LANES; i++) found = best[i] > found || best[i] != best[i] ? best[i] : found;
    return found;
}

#endif
