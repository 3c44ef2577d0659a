/* The end of a convolution of which pools are what is wanted: what follows is done to the sums where they are. */
#ifndef SPARSEC_POOLED_H
#define SPARSEC_POOLED_H

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

/* The pools of so many rows from `first` on; `at` says which row of those of all samples they begin at. */
static void pool_band(const sparsec_step *s, float *const *memory, const sums_band *band, int64_t first, int count, int64_t at) {
    const pairs p = {band->rows / 2, s->extra.width, band->down, 2 * band->down};
    const float *sums = band->sums;
    for (int i = 0; i < count; i++, sums += band->pitch) {
        float *y = row_of(&s->extra, memory, first + i) + at * s->extra.width;
        if (s->options[1] == SPARSEC_GREATEST) pool_pairs(1, 2, &p, sums, INT64_MAX, y, (int64_t)p.height * p.width);
        else pool_pairs(0, 2, &p, sums, INT64_MAX, y, (int64_t)p.height * p.width);
    }
}

/* The same with what follows the kernel, which is also done to what is between rows of positions. */
static void end_pooled(const sparsec_step *s, float *const *memory, const sums_band *band, int64_t first, int count, int64_t at) {
    if (s->posts) {
        sparsec_step inner = *s;
        const int width = (int)((band->rows - 1) * band->down) + s->y.width;
        inner.y = (sparsec_value){.channels = s->y.channels, .samples = 1, .height = 1, .width = width, .pitch = band->pitch};
        inner.y.offset = band->sums - memory[0] - first * band->pitch;
        NAME(post_rows)(&inner, memory, first, count, 0, width);
    }
    pool_band(s, memory, band, first, count, at);
}

#endif
