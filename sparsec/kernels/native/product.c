/*
 * A sparse matrix times the positions of a value: 1x1 convolutions, and dense layers for many vectors.
 *
 * A tile is a few lines of every row. Its panel is read in place where the rows of x are short, so that a block of it stays in
 * the cache; else it is copied, so that its rows lie side by side. Sums are kept in y itself.
 */
#include "block.h"

enum {
    NEAR = 64 * LINE, /* floats: rows that lie so near one another are read in place */
};

/* How many tiles there are, and where tile i begins and ends, in lines: all are as wide as the next, or one line wider. */
static int64_t count_tiles(const sparsec_step *s, int most_lines) {
    const int64_t lines = round_up(positions(&s->y), LANES) / LANES;
    return round_up(lines, most_lines) / most_lines;
}

static int64_t packed_floats(const sparsec_step *s) {
    if (s->x.pitch <= NEAR) return 0;
    const sparsec_matrix *pieces = s->weights;
    int64_t floats = 0;
    for (int i = 0; i < s->pieces; i++) {
        const int64_t n = (int64_t)widest_block(pieces + i) * most_lines(pieces + i) * LANES;
        floats = n > floats ? n : floats;
    }
    return floats;
}

int64_t SIZE(product)(const sparsec_step *s) { return packed_floats(s) * (int64_t)sizeof(float) + 128; }

static void pack(const sparsec_step *s, const float *x, int channels, int lines, float *panel) {
    for (int c = 0; c < channels; c++, x += s->x.pitch, panel += lines * LANES) {
        for (int j = 0; j < lines; j++) store(panel + j * LANES, load(x + j * LANES));
    }
}

static void run_piece(
    const sparsec_step *s, float *const *memory, float *panel, const sparsec_matrix *m, int64_t row, portion work, int64_t tiles
) {
    const int64_t lines = round_up(positions(&s->y), LANES) / LANES;
    for (int64_t tile = work.tile; tile < work.tiles; tile++) {
        const int64_t from = lines * tile / tiles;
        const int wide = (int)(lines * (tile + 1) / tiles - from);
        const float *x = row_of(&s->x, memory, 0) + from * LANES;
        float *y = row_of(&s->y, memory, row) + from * LANES;
        target t = {.sums = y, .pitch = s->y.pitch, .out = y, .out_pitch = s->y.pitch, .rows = m->rows};
        t.low = s->low, t.high = s->high;
        t.bias = s->bias ? s->bias + row : NULL;
        if (s->residual.base >= 0) {
            t.residual = row_of(&s->residual, memory, row) + from * LANES;
            t.residual_pitch = s->residual.pitch;
        }
        cursor at = begin(m);
        for (int b = 0; b < m->blocks; b++) {
            const float *block = x + m->starts[b] * s->x.pitch;
            if (s->x.pitch > NEAR) pack(s, block, m->starts[b + 1] - m->starts[b], wide, panel);
            t.panel = (const char *)(s->x.pitch > NEAR ? panel : block);
            t.stride = (s->x.pitch > NEAR ? wide * LANES : s->x.pitch) * (ptrdiff_t)sizeof(float);
            t.first = b == 0;
            t.last = b == m->blocks - 1;
            at = add_block(m, wide, at, b, &t);
        }
        if (s->posts) {
            const int64_t first = from * LANES, left = positions(&s->y) - first, count = wide * LANES;
            for (int i = 0; i < m->rows; i++) NAME(post)(s, memory, row + i, first, count < left ? count : left);
        }
    }
}

void NAME(product)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    const sparsec_matrix *pieces = s->weights;
    const int64_t tiles = count_tiles(s, most_lines(pieces));
    const portion work = portion_of(s, tiles, part, parts);
    int64_t row = 0;
    for (int i = 0; i < work.pieces; i++) {
        if (i >= work.piece) run_piece(s, memory, scratch, pieces + i, row, work, tiles);
        row += pieces[i].rows;
    }
}
