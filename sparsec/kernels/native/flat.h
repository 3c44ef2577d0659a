/*
 * What product.c and unrolled.c have in common: a sparse matrix times the positions of a value, taken in turn without regard to
 * where rows of positions and samples end. A tile is a few lines of every row of y, and sums are kept in y itself.
 */
#ifndef SPARSEC_FLAT_H
#define SPARSEC_FLAT_H

#include "block.h"

INLINE int64_t lines_of(const sparsec_step *s) { return round_up(positions(&s->y), LANES) / LANES; }

/* How many tiles there are; all are equally wide, or one line wider. */
INLINE int64_t count_tiles(const sparsec_step *s) {
    const int most_wide = s->options[0] ? least(s->options[0], most_lines(s->weights)) : most_lines(s->weights);
    return round_up(lines_of(s), most_wide) / most_wide;
}

/* The floats of a panel in which what a column meets lies at a multiple of the width of a tile. */
INLINE int64_t panel_floats(const sparsec_step *s) {
    const sparsec_matrix *pieces = s->weights;
    int64_t widest = 0;
    for (int i = 0; i < s->pieces; i++) {
        const int64_t columns = (int64_t)widest_block(pieces + i) * pieces[i].taps;
        widest = columns > widest ? columns : widest;
    }
    return widest * most_lines(pieces) * LANES + LINE;
}

/* Makes the panel of channels first <= c < stop for a tile; the columns of a channel are its taps. */
typedef void make_flat(const sparsec_step *s, const float *x, int first, int stop, int64_t position, int lines, float *panel);

/* What is read in place is met in no order, so it is fetched in order before. */
INLINE void fetch_panel(const sparsec_step *s, const float *x, int first, int stop, int64_t position, int lines) {
    for (int c = first; c < stop; c++) {
        const float *row = x + c * s->x.pitch + position;
        for (int j = 0; j < lines * LANES; j += LINE) __builtin_prefetch(row + j);
    }
}

/* One piece of the matrix, whose first row is `row`; without `make`, x is read in place. */
INLINE void run_flat(
    const sparsec_step *s, float *const *memory, float *panel, const sparsec_matrix *m, int64_t row, portion work,
    int64_t tiles, make_flat *make
) {
    const int64_t lines = lines_of(s);
    const float *x = row_of(&s->x, memory, 0);
    for (int64_t tile = work.tile; tile < work.tiles; tile++) {
        const int64_t from = lines * tile / tiles, position = from * LANES;
        const int wide = (int)(lines * (tile + 1) / tiles - from);
        const int tail = tail_of(m, positions(&s->y) - position - (wide - 1) * LANES);
        float *y = row_of(&s->y, memory, row) + position;
        target t = {.sums = y, .pitch = s->y.pitch, .out = y, .out_pitch = s->y.pitch, .rows = m->rows};
        t.low = s->low, t.high = s->high;
        t.fetches = fetches(m, tile == work.tile);
        t.bias = s->bias ? s->bias + row : NULL;
        t.stride = (make ? wide * LANES : s->x.pitch) * (ptrdiff_t)sizeof(float);
        if (s->residual.base >= 0) {
            t.residual = row_of(&s->residual, memory, row) + position;
            t.residual_pitch = s->residual.pitch;
        }
        cursor at = begin(m);
        for (int b = 0; b < m->blocks; b++) {
            if (make) make(s, x, m->starts[b], m->starts[b + 1], position, wide, panel);
            else fetch_panel(s, x, m->starts[b], m->starts[b + 1], position, wide);
            t.panel = (const char *)(make ? panel : x + m->starts[b] * s->x.pitch + position);
            t.first = b == 0;
            t.last = b == m->blocks - 1;
            at = add_block(m, wide, tail, at, b, &t);
        }
        if (s->posts) {
            const int64_t left = positions(&s->y) - position, count = wide * LANES;
            NAME(post_rows)(s, memory, row, m->rows, position, count < left ? count : left);
        }
    }
}

INLINE void run_pieces(
    const sparsec_step *s, float *const *memory, float *panel, int part, int parts, make_flat *make
) {
    const sparsec_matrix *pieces = s->weights;
    const int64_t tiles = count_tiles(s);
    const portion work = portion_of(s, tiles, part, parts);
    int64_t row = 0;
    for (int i = 0; i < work.pieces; i++) {
        if (i >= work.piece) run_flat(s, memory, panel, pieces + i, row, work, tiles, make);
        row += pieces[i].rows;
    }
}

#endif
