/* The product of two matrices that are both computed: y[i][t] is the sum of a(i, k) b[k][t] over k. */
#ifndef SPARSEC_MULTIPLY_H
#define SPARSEC_MULTIPLY_H

#include "vector.h"

/* Element (i, k) of `a` is a[i * down + k * along], rows of `b` and `y` are so many floats apart. */
typedef struct {
    const float *a;
    ptrdiff_t down, along;
    const float *b;
    ptrdiff_t pitch_b;
    float *y;
    ptrdiff_t pitch_y;
    int64_t depth;
} factors;

enum { FACTOR_ROWS = WIDE ? 6 : 4, FACTOR_LINES = 2 };

/* Some rows of some vectors; of the last of these, some lanes. */
INLINE void multiply_block(const int rows, const int lines, const factors *f, int64_t row, int64_t t, lanes last) {
    const float *a = f->a + row * f->down, *b = f->b + t;
    vec sums[FACTOR_ROWS][FACTOR_LINES];
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 2
        for (int j = 0; j < lines; j++) sums[i][j] = (vec){0};
    }
    for (int64_t k = 0; k < f->depth; k++, a += f->along, b += f->pitch_b) {
        vec line[FACTOR_LINES];
#pragma GCC unroll 2
        for (int j = 0; j < lines; j++) line[j] = j + 1 < lines ? load(b + j * LANES) : load_lanes(b + j * LANES, last);
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
            const float factor = a[i * f->down];
#pragma GCC unroll 2
            for (int j = 0; j < lines; j++) sums[i][j] += line[j] * factor;
        }
    }
    float *y = f->y + row * f->pitch_y + t;
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++, y += f->pitch_y) {
#pragma GCC unroll 2
        for (int j = 0; j < lines; j++) {
            if (j + 1 < lines) store(y + j * LANES, sums[i][j]);
            else store_lanes(y + j * LANES, sums[i][j], last);
        }
    }
}

/* Rows first <= i < stop of `count` columns. */
static void multiply(const factors *f, int64_t first, int64_t stop, int64_t count) {
    enum { WIDTH = FACTOR_LINES * LANES };
    for (int64_t t = 0; t < count; t += WIDTH) {
        const int64_t left = count - t;
        int64_t row = first;
        if (left > LANES) {
            const lanes last = lanes_of(0, left < WIDTH ? (int)left - LANES : LANES);
            for (; row + FACTOR_ROWS <= stop; row += FACTOR_ROWS) multiply_block(FACTOR_ROWS, FACTOR_LINES, f, row, t, last);
            for (; row < stop; row++) multiply_block(1, FACTOR_LINES, f, row, t, last);
        } else {
            const lanes last = lanes_of(0, (int)left);
            for (; row + FACTOR_ROWS <= stop; row += FACTOR_ROWS) multiply_block(FACTOR_ROWS, 1, f, row, t, last);
            for (; row < stop; row++) multiply_block(1, 1, f, row, t, last);
        }
    }
}

#endif
