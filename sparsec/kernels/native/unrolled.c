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

static void make_2(const sparsec_step *s, const float *x, int first, int stop, int64_t position, int lines, float *panel) {
    make_panel(2, s, x, first, stop, position, lines, panel);
}

static void make_any(const sparsec_step *s, const float *x, int first, int stop, int64_t position, int lines, float *panel) {
    make_panel(s->window.stride_width == 1, s, x, first, stop, position, lines, panel);
}

/*
 * Where the output is as large as the input, what an element of the window meets is a constant distance away from each position,
 * or outside. So its row of a panel is a copy of a part of x, with zeros in the lanes that are outside: those whose bits are not
 * set, which are the same for all channels.
 */
INLINE int is_steady(const sparsec_step *s) {
    return s->window.stride_height == 1 && s->window.stride_width == 1 && s->x.height == s->y.height && s->x.width == s->y.width;
}

static void find_inside(const sparsec_step *s, int64_t position, int lines, uint16_t *inside) {
    const sparsec_window *w = &s->window;
    segment segments[MOST];
    const int n = find_segments(s, position, lines * LANES, segments);
    memset(inside, 0, sizeof(uint16_t) * w->height * w->width * lines);
    for (int i = 0; i < w->height; i++) {
        const int down = i * w->dilation_height - w->pad_height;
        for (int j = 0; j < w->width; j++, inside += lines) {
            const int right = j * w->dilation_width - w->pad_width;
            for (int k = 0, begin = 0; k < n; begin += segments[k++].count) {
                const segment *at = segments + k;
                if (at->row + down < 0 || at->row + down >= s->x.height) continue;
                int from = begin + most(0, -right - at->column);
                const int to = begin + least(at->count, s->x.width - right - at->column);
                for (; from < to; from = (from / LANES + 1) * LANES) {
                    const int first = from % LANES, last = least(to - from + first, LANES);
                    inside[from / LANES] |= (uint16_t)((1u << last) - (1u << first));
                }
            }
        }
    }
}

INLINE void copy_steady(
    const int lines, const sparsec_step *s, const float *x, int first, int stop, const uint16_t *inside, float *panel
) {
    /* Copies on the stack let the compiler see that stores to the panel do not change them. */
    const sparsec_window w = s->window;
    const ptrdiff_t pitch = s->x.pitch, down = (ptrdiff_t)w.dilation_height * s->x.width, right = w.dilation_width;
    const float *corner = x + first * pitch - (ptrdiff_t)w.pad_height * s->x.width - w.pad_width;
    for (int channel = first; channel < stop; channel++, corner += pitch) {
        const uint16_t *bits = inside;
        for (int i = 0; i < w.height; i++) {
            const float *from = corner + i * down;
            for (int j = 0; j < w.width; j++, from += right, panel += lines * LANES, bits += lines) {
#pragma GCC unroll 8
                for (int k = 0; k < lines; k++) store(panel + k * LANES, load_bits(from + k * LANES, bits[k]));
            }
        }
    }
}

static void make_steady(const sparsec_step *s, const float *x, int first, int stop, int64_t position, int lines, float *panel) {
    uint16_t *inside = (uint16_t *)(panel + panel_floats(s));
    if (first == 0) find_inside(s, position, lines, inside);
    x += position;
    switch (lines) {
        case 8: copy_steady(8, s, x, first, stop, inside, panel); break;
        case 7: copy_steady(7, s, x, first, stop, inside, panel); break;
        case 6: copy_steady(6, s, x, first, stop, inside, panel); break;
        case 5: copy_steady(5, s, x, first, stop, inside, panel); break;
        case 4: copy_steady(4, s, x, first, stop, inside, panel); break;
        case 3: copy_steady(3, s, x, first, stop, inside, panel); break;
        case 2: copy_steady(2, s, x, first, stop, inside, panel); break;
        default: copy_steady(1, s, x, first, stop, inside, panel);
    }
}

int64_t SIZE(unrolled)(const sparsec_step *s) {
    const int64_t bits = (int64_t)sizeof(uint16_t) * s->window.height * s->window.width * LINES_1;
    return panel_floats(s) * (int64_t)sizeof(float) + (is_steady(s) ? bits : 0);
}

void NAME(unrolled)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    if (is_steady(s)) run_pieces(s, memory, scratch, part, parts, make_steady);
    else if (s->window.stride_width == 2) run_pieces(s, memory, scratch, part, parts, make_2);
    else run_pieces(s, memory, scratch, part, parts, make_any);
}
