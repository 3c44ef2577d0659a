/* The end of a convolution of which pools are what is wanted: what follows is done to the sums where they are. */
#ifndef SPARSEC_POOLED_H
#define SPARSEC_POOLED_H

#include "functions.h"
#include "pairs.h"

/* The sums of some rows of positions; what is between these means nothing. */
typedef struct {
    float *sums;      /* of row 0 and the first position */
    ptrdiff_t pitch;  /* floats from a row to the next */
    ptrdiff_t down;   /* floats from a row of positions to the next */
    int rows;         /* of positions */
} sums_band;

/* Rows of positions that are computed together: those of a pool, or one where there are none. */
INLINE int unit_rows(const sparsec_step *s) { return s->extra.base >= 0 ? 2 : 1; }

#if SPARSEC_BYTES == 64
/* A vector of pools from what lies in the columns of first and then of second; as much as there is `room` for is written. */
INLINE void give_pools(const int greatest, vec first, vec second, float *y, int64_t room) {
    const vec found = joined(greatest, evens(first, second), odds(first, second));
    const vec pools = greatest ? found : (vec)(found * splat(0.25f));
    if (room >= LANES) store(y, pools);
    else store_lanes(y, pools, lanes_of(0, (int)room));
}

/*
 * Pools of tanh, which is computed on the way, of four vectors at a time: of both rows of positions of a pool, and of two lines of
 * these or of two pools one below the other.
 */
INLINE void pool_tanh(const int greatest, const pairs *p, const float *x, float *y) {
    const ptrdiff_t step = p->step;
    const int width = p->width;
    int64_t room = (int64_t)p->height * width;
    if (2 * width > LANES) {
        for (int row = 0; row < p->height; row++, x += p->down, y += width, room -= width) {
            for (int i = 0; i < width; i += LANES) {
                const float *from = x + 2 * i;
                vec v[4] = {load(from), load(from + LANES), load(from + step), load(from + step + LANES)};
                hyperbolic_of(4, v);
                give_pools(greatest, joined(greatest, v[0], v[2]), joined(greatest, v[1], v[3]), y + i, room - i);
            }
        }
        return;
    }
    for (int row = 0; row < p->height; row += 2, x += 2 * p->down, y += 2 * width, room -= 2 * width) {
        const int is_last = row + 1 == p->height;
        const float *next = is_last ? x : x + p->down;
        vec v[4] = {load(x), load(x + step), load(next), load(next + step)};
        hyperbolic_of(4, v);
        const vec first = joined(greatest, v[0], v[1]), second = joined(greatest, v[2], v[3]);
        give_pools(greatest, first, first, y, room);
        if (!is_last) give_pools(greatest, second, second, y + width, room - width);
    }
}
#endif

/* The pools of so many rows from `first` on; `at` says which row of those of all samples they begin at. */
INLINE void pool_band(
    const int greatest, const int of_tanh, const sparsec_step *s, float *const *memory, const sums_band *band, int64_t first, int count,
    int64_t at
) {
    const pairs p = {band->rows / 2, s->extra.width, band->down, 2 * band->down};
    const float *sums = band->sums;
    for (int i = 0; i < count; i++, sums += band->pitch) {
        float *y = row_of(&s->extra, memory, first + i) + at * s->extra.width;
#if SPARSEC_BYTES == 64
        if (of_tanh) {
            pool_tanh(greatest, &p, sums, y);
            continue;
        }
#endif
        (void)of_tanh;
        pool_pairs(greatest, 2, &p, sums, INT64_MAX, y, (int64_t)p.height * p.width);
    }
}

/* The same with what follows the kernel, which is also done to what is between rows of positions. */
static void end_pooled(const sparsec_step *s, float *const *memory, const sums_band *band, int64_t first, int count, int64_t at) {
    const int of_tanh = SPARSEC_BYTES == 64 && s->posts && s->post[s->posts - 1].function == SPARSEC_FN_tanh;
    sparsec_step inner = *s;
    inner.posts -= of_tanh;
    if (inner.posts) {
        const int width = (int)((band->rows - 1) * band->down) + s->y.width;
        inner.y = (sparsec_value){.channels = s->y.channels, .samples = 1, .height = 1, .width = width, .pitch = band->pitch};
        inner.y.offset = band->sums - memory[0] - first * band->pitch;
        NAME(post_rows)(&inner, memory, first, count, 0, width);
    }
    const int greatest = s->options[1] == SPARSEC_GREATEST;
    if (greatest && of_tanh) pool_band(1, 1, s, memory, band, first, count, at);
    else if (greatest) pool_band(1, 0, s, memory, band, first, count, at);
    else if (of_tanh) pool_band(0, 1, s, memory, band, first, count, at);
    else pool_band(0, 0, s, memory, band, first, count, at);
}

#endif
