/* Turning rows into columns. */
#ifndef SPARSEC_TRANSPOSE_H
#define SPARSEC_TRANSPOSE_H

#include "vector.h"

INLINE void transpose4(quad *a, quad *b, quad *c, quad *d) {
    quad ab = SHUFFLE(*a, *b, 0, 4, 1, 5), ab_high = SHUFFLE(*a, *b, 2, 6, 3, 7);
    quad cd = SHUFFLE(*c, *d, 0, 4, 1, 5), cd_high = SHUFFLE(*c, *d, 2, 6, 3, 7);
    *a = SHUFFLE(ab, cd, 0, 1, 4, 5);
    *b = SHUFFLE(ab, cd, 2, 3, 6, 7);
    *c = SHUFFLE(ab_high, cd_high, 0, 1, 4, 5);
    *d = SHUFFLE(ab_high, cd_high, 2, 3, 6, 7);
}

/*
 * to[j * to_pitch + i] = from[i * from_pitch + j] for i < rows, j < columns. Sixteen columns at a time: of each row a whole line of
 * the cache is read, and the lines that are written stay in the cache.
 */
static void transpose(const float *from, ptrdiff_t from_pitch, float *to, ptrdiff_t to_pitch, int64_t rows, int64_t columns) {
    const int64_t whole_rows = rows / 4 * 4;
    for (int64_t first = 0; first < columns; first += LINE) {
        const int64_t stop = first + LINE < columns ? first + LINE : columns, whole = first + (stop - first) / 4 * 4;
        for (int64_t i = 0; i < whole_rows; i += 4) {
            const float *row = from + i * from_pitch;
            float *out = to + first * to_pitch + i;
            int64_t j = first;
            for (; j < whole; j += 4, out += 4 * to_pitch) {
                quad a = *(const quad *)(row + j), b = *(const quad *)(row + from_pitch + j);
                quad c = *(const quad *)(row + 2 * from_pitch + j), d = *(const quad *)(row + 3 * from_pitch + j);
                transpose4(&a, &b, &c, &d);
                *(quad *)out = a;
                *(quad *)(out + to_pitch) = b;
                *(quad *)(out + 2 * to_pitch) = c;
                *(quad *)(out + 3 * to_pitch) = d;
            }
            for (; j < stop; j++, out += to_pitch) {
                *(quad *)out = (quad){row[j], row[from_pitch + j], row[2 * from_pitch + j], row[3 * from_pitch + j]};
            }
        }
        for (int64_t i = whole_rows; i < rows; i++) {
            for (int64_t j = first; j < stop; j++) to[j * to_pitch + i] = from[i * from_pitch + j];
        }
    }
}

#endif
