/* A sparse matrix times the positions of a value: 1x1 convolutions, and dense layers for many vectors. */
#include "flat.h"

enum {
    NEAR = 64 * LINE, /* floats: rows that lie so near one another are read in place, else copied side by side */
};

INLINE int in_place(const sparsec_step *s) { return s->x.pitch <= NEAR && !s->options[1]; }

int64_t SIZE(product)(const sparsec_step *s) {
    return in_place(s) ? 0 : panel_floats(s) * (int64_t)sizeof(float);
}

static void copy_panel(const sparsec_step *s, const float *x, int first, int stop, int64_t position, int lines, float *panel) {
    x += first * s->x.pitch + position;
    for (int c = first; c < stop; c++, x += s->x.pitch, panel += lines * LANES) {
        for (int j = 0; j < lines; j++) store(panel + j * LANES, load(x + j * LANES));
    }
}

void NAME(product)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    if (in_place(s)) run_pieces(s, memory, scratch, part, parts, NULL);
    else run_pieces(s, memory, scratch, part, parts, copy_panel);
}
