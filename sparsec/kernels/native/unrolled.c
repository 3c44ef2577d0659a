/*
 * Convolutions with a sparse matrix and any window, whose panel has the input of every element of the window (im2col): more is
 * copied than in windows.c, but positions follow one another without gaps, so that no vector is wasted where rows are short.
 */
#include "flat.h"
#include "rows.h"

enum {
    MOST = LINES_1 * LANES, /* positions in a tile */
};

/* Some positions of one row that follow one another in a tile. */
typedef struct {
    int64_t sample;
    int row, column, count;
} segment;

static int find_segments(const sparsec_step *s, int64_t position, int count, segment *found) {
    const int64_t plane = (int64_t)s->y.height * s->y.width, all = positions(&s->y);
    int n = 0;
    for (int64_t left = count < all - position ? count : all - position; left > 0; n++) {
        const int in_plane = (int)(position % plane), column = in_plane % s->y.width;
        const int run = (int)(s->y.width - column < left ? s->y.width - column : left);
        found[n] = (segment){position / plane, in_plane / s->y.width, column, run};
        position += run;
        left -= run;
    }
    return n;
}

INLINE void make_panel(
    const int known, const sparsec_step *s, const float *x, int first, int stop, int64_t position, int lines, float *panel
) {
    const sparsec_window *w = &s->window;
    const int width = s->x.width, height = s->x.height;
    segment segments[MOST];
    const int n = find_segments(s, position, lines * LANES, segments);
    for (int channel = first; channel < stop; channel++) {
        const float *of_channel = x + channel * s->x.pitch;
        for (int i = 0; i < w->height; i++) {
            for (int j = 0; j < w->width; j++, panel += lines * LANES) {
                float *to = panel;
                for (int k = 0; k < n; to += segments[k++].count) {
                    const segment *at = segments + k;
                    const int row = at->row * w->stride_height - w->pad_height + i * w->dilation_height;
                    const int left = at->column * w->stride_width - w->pad_width + j * w->dilation_width;
                    const float *from = of_channel + (at->sample * height + row) * width;
                    if (row < 0 || row >= height) clear_row(to, at->count);
                    else copy_row(known, w->stride_width, to, from, left, width, at->count);
                }
            }
        }
    }
}

static void make_1(const sparsec_step *s, const float *x, int first, int stop, int64_t position, int lines, float *panel) {
    make_panel(1, s, x, first, stop, position, lines, panel);
}

static void make_2(const sparsec_step *s, const float *x, int first, int stop, int64_t position, int lines, float *panel) {
    make_panel(2, s, x, first, stop, position, lines, panel);
}

static void make_any(const sparsec_step *s, const float *x, int first, int stop, int64_t position, int lines, float *panel) {
    make_panel(0, s, x, first, stop, position, lines, panel);
}

int64_t SIZE(unrolled)(const sparsec_step *s) { return panel_floats(s) * (int64_t)sizeof(float); }

void NAME(unrolled)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    switch (s->window.stride_width) {
        case 1: run_pieces(s, memory, scratch, part, parts, make_1); break;
        case 2: run_pieces(s, memory, scratch, part, parts, make_2); break;
        default: run_pieces(s, memory, scratch, part, parts, make_any);
    }
}
