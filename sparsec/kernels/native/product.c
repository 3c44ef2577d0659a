/* A sparse matrix times the positions of a value: 1x1 convolutions, and dense layers for many vectors. */
#include "flat.h"

enum {
    NEAR = 64 * LINE, /* floats: rows that lie so near one another are read in place, else copied side by side */
};

INLINE int in_place(const sparsec_step *s) { return s->x.pitch <= NEAR && !s->options[1] && !s->scale; }

static void copy_panel(const sparsec_step *s, const float *x, int first, int stop, int64_t position, int lines, float *panel) {
    x += first * s->x.pitch + position;
    for (int c = first; c < stop; c++, x += s->x.pitch, panel += lines * LANES) {
        for (int j = 0; j < lines; j++) store(panel + j * LANES, load(x + j * LANES));
    }
}

static void copy_scaled(const sparsec_step *s, const float *x, int first, int stop, int64_t position, int lines, float *panel) {
    const vec low = splat(s->numbers[0]), high = splat(s->numbers[1]);
    x += first * s->x.pitch + position;
    for (int c = first; c < stop; c++, x += s->x.pitch, panel += lines * LANES) {
        const vec scale = splat(s->scale[c]), shift = splat(s->shift[c]);
        for (int j = 0; j < lines; j++) store(panel + j * LANES, vclamp(load(x + j * LANES) * scale + shift, low, high));
    }
}

typedef struct {
    float *panel;
    sparsec_matrix *gated; /* the pieces of the matrix, as they are for this input */
    float *values;         /* and their values */
    int64_t bytes;
} product_plan;

static int64_t count_values(const sparsec_matrix *m) { return (int64_t)m->entries * m->height; }

static product_plan plan_product(const sparsec_step *s, void *scratch) {
    const sparsec_matrix *pieces = s->weights;
    product_plan p = {0};
    arena from = {scratch, 0};
    p.panel = take(&from, in_place(s) ? 0 : sizeof(float) * panel_floats(s));
    if (s->extra.base >= 0) {
        int64_t values = 0;
        for (int i = 0; i < s->pieces; i++) values += count_values(pieces + i);
        p.gated = take(&from, sizeof(sparsec_matrix) * s->pieces);
        p.values = take(&from, sizeof(float) * values);
    }
    p.bytes = from.used;
    return p;
}

int64_t SIZE(product)(const sparsec_step *s) { return plan_product(s, NULL).bytes; }

/* Rows of x that are multiplied by a number are columns of the matrix that are, which has fewer values than x. */
static void multiply_columns(const sparsec_matrix *m, const float *gate, ptrdiff_t pitch, float *values) {
    cursor at = begin(m);
    for (int b = 0; b < m->blocks; b++) {
        const float *of_block = gate + m->starts[b] * pitch;
        int64_t entries = 0;
        for (int run = 0; run < m->counts[b]; run++, at.runs += 2) entries += (int64_t)at.runs[0] * at.runs[1];
        for (int64_t e = 0; e < entries; e++) {
            const float factor = of_block[at.columns[e] * pitch];
            for (int i = 0; i < m->height; i++) values[e * m->height + i] = at.values[e * m->height + i] * factor;
        }
        at.columns += entries;
        at.values += entries * m->height;
        values += entries * m->height;
    }
}

/* The pieces that a part of the step needs. */
static void make_gated(const sparsec_step *s, float *const *memory, const product_plan *p, int part, int parts) {
    const sparsec_matrix *pieces = s->weights;
    const portion work = portion_of(s, count_tiles(s), part, parts);
    float *values = p->values;
    for (int i = 0; i < s->pieces; i++) {
        p->gated[i] = pieces[i];
        p->gated[i].values = values;
        if (i >= work.piece && i < work.pieces) multiply_columns(pieces + i, row_of(&s->extra, memory, 0), s->extra.pitch, values);
        values += count_values(pieces + i);
    }
}

void NAME(product)(const sparsec_step *given, float *const *memory, void *scratch, int part, int parts) {
    sparsec_step s = *given;
    const product_plan p = plan_product(given, scratch);
    if (p.gated) {
        make_gated(given, memory, &p, part, parts);
        s.weights = p.gated;
    }
    if (in_place(&s)) run_pieces(&s, memory, p.panel, part, parts, NULL);
    else if (s.scale) run_pieces(&s, memory, p.panel, part, parts, copy_scaled);
    else run_pieces(&s, memory, p.panel, part, parts, copy_panel);
}
