/* The greatest and the mean of windows of two columns that lie side by side, all inside. */
#ifndef SPARSEC_PAIRS_H
#define SPARSEC_PAIRS_H

#include "vector.h"

INLINE vec joined(const int greatest, vec a, vec b) { return greatest ? maximum(a, b) : (vec)(a + b); }

/* Rows made one: lanes i < LANES of what begins at `from`, where so many floats are the row's. */
INLINE vec join_lanes(const int greatest, const int rows, const float *from, int64_t step, int count) {
    const lanes which = lanes_of(0, count);
    vec joint = load_lanes(from, which);
    for (int k = 1; k < rows; k++) joint = joined(greatest, joint, load_lanes(from + k * step, which));
    return joint;
}

INLINE vec join_whole(const int greatest, const int rows, const float *from, int64_t step) {
    vec joint = load(from);
#pragma GCC unroll 4
    for (int k = 1; k < rows; k++) joint = joined(greatest, joint, load(from + k * step));
    return joint;
}

/* Windows that are two columns wide, side by side: height and width of the output, and floats from a row of the input to another. */
typedef struct {
    int height, width;
    int64_t step, down; /* to the next in a window, and to that of the next window */
} pairs;

/*
 * A plane of the output, `rows` rows of the input for each. Where x has room_x floats and y room_y, whole vectors are read and
 * written, though what of them is beyond a row means nothing.
 */
INLINE void pool_pairs(
    const int greatest, const int rows, const pairs *p, const float *x, int64_t room_x, float *y, int64_t room_y
) {
    const int height = p->height, width = p->width, narrow = 2 * width <= LANES;
    const int64_t size = round_up(width, LANES), step = p->step, down = p->down;
    const vec inverse = splat(1.0f / (2 * rows));
    for (int row = 0; row < height; row++, x += down, room_x -= down, y += width, room_y -= width) {
        if ((rows - 1) * step + (narrow ? size : 2 * size) <= room_x && size <= room_y) {
            for (int i = 0; i < width; i += LANES) {
                const float *from = x + 2 * i;
                const vec first = join_whole(greatest, rows, from, step);
                const vec second = narrow ? first : join_whole(greatest, rows, from + LANES, step);
                const vec found = joined(greatest, evens(first, second), odds(first, second));
                store(y + i, greatest ? found : (vec)(found * inverse));
            }
            continue;
        }
        for (int i = 0; i < width; i += LANES) {
            const float *from = x + 2 * i;
            const vec first = join_lanes(greatest, rows, from, step, 2 * (width - i));
            const vec second = join_lanes(greatest, rows, from + LANES, step, 2 * (width - i) - LANES);
            const vec found = joined(greatest, evens(first, second), odds(first, second));
            store_lanes(y + i, greatest ? found : (vec)(found * inverse), lanes_of(0, width - i));
        }
    }
}

#endif
