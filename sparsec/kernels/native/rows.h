/* Rows of positions, and copying them into panels. Whole vectors are written, so up to a vector beyond the row. */
#ifndef SPARSEC_ROWS_H
#define SPARSEC_ROWS_H

#include "vector.h"

/* The input rows that so many rows of positions read. */
INLINE int rows_read(const sparsec_window *w, int rows) {
    return (rows - 1) * w->stride_height + (w->height - 1) * w->dilation_height + 1;
}

INLINE void clear_row(float *to, int count) {
    for (int i = 0; i < count; i += LANES) store(to + i, (vec){0});
}

/*
 * to[i] = row[first + i * stride] for i < count, or zero where that is outside of `width`. `known` is the stride where that is 1 or
 * 2, else 0.
 */
INLINE void copy_row(const int known, int stride, float *to, const float *row, int first, int width, int count) {
    if (known == 1) {
        for (int i = 0; i < count; i += LANES) {
            const int at = first + i, inside = at >= 0 && at + LANES <= width;
            store(to + i, inside ? load(row + at) : load_lanes(row + at, lanes_of(-at, width - at)));
        }
    } else if (known == 2) {
        for (int i = 0; i < count; i += LANES) {
            const int at = first + 2 * i, next = at + LANES;
            const vec a = load_lanes(row + at, lanes_of(-at, width - at));
            const vec b = load_lanes(row + next, lanes_of(-next, width - next));
            store(to + i, evens(a, b));
        }
    } else {
        for (int i = 0; i < count; i++) {
            const int at = first + i * stride;
            to[i] = at >= 0 && at < width ? row[at] : 0.0f;
        }
    }
}

/* What neighbouring lanes meet one stride apart, which is 1 or 2: bits say which elements of the one or two vectors are read. */
INLINE vec read_line(const int stride, const float *from, const uint16_t *bits) {
    if (stride == 1) return load_bits(from, bits[0]);
    return evens(load_bits(from, bits[0]), load_bits(from + LANES, bits[1]));
}

/* The bits of the elements first <= i < stop of a vector; with a stride of two, of those of even number. */
INLINE uint16_t bits_of(int stride, int first, int stop) {
    const uint32_t to = stop >= LANES ? (1u << LANES) - 1 : stop <= 0 ? 0 : (1u << stop) - 1;
    const uint32_t from = first >= LANES ? (1u << LANES) - 1 : first <= 0 ? 0 : (1u << first) - 1;
    return (uint16_t)(to & ~from & (stride == 1 ? 0xffffu : 0x5555u));
}

#endif
