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

/* Copies rows of positions one by one, at any stride. */
static void make_any(const sparsec_step *s, const float *x, int first, int stop, int64_t position, int lines, float *panel) {
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
                    else copy_row(0, w->stride_width, to, from, left, width, at->count);
                }
            }
        }
    }
}

/* ---- strides of one and two --------------------------------------------------------------------------------------------- */

/*
 * How a line of a panel is read: neighbouring lanes meet elements of x that lie one stride apart, as far as a row of positions
 * goes. What begins within a line and lies elsewhere is a patch, which is read by itself and joined to its line. Where the output is
 * as large as the input there are no patches: rows follow one another in both. What leaves the input is zero; which lanes do not,
 * bits say. All this is the same for all channels, and is found once for a tile.
 */
typedef struct {
    int lines, patches;
    int linear;           /* whether each line begins where the line before ends, and there are no patches */
    int line[MOST];       /* of each patch */
    ptrdiff_t from[MOST + LINES_1]; /* where the first lane of each line meets x in a channel, and then of each patch */
    uint16_t *bits;       /* [taps, lines + patches, stride] of the lanes that are read */
} reading;

/* A segment of positions as far as it lies in one line. */
typedef struct {
    segment at;
    int slot, lane; /* the line or patch; the first lane */
} stretch;

static ptrdiff_t element_of(const sparsec_step *s, const segment *at) {
    const ptrdiff_t row = at->sample * s->x.height + (ptrdiff_t)at->row * s->window.stride_height;
    return row * s->x.width + (ptrdiff_t)at->column * s->window.stride_width;
}

/* Finds where lines and patches begin, and returns the number of stretches. */
static int find_stretches(const sparsec_step *s, int64_t position, int lines, reading *r, stretch *found) {
    segment segments[MOST];
    const int segment_count = find_segments(s, position, lines * LANES, segments), stride = s->window.stride_width;
    int n = 0, place = 0;
    *r = (reading){.lines = lines, .linear = 1, .bits = r->bits};
    for (int k = 0; k < segment_count; k++) {
        segment rest = segments[k];
        while (rest.count > 0) {
            const int line = place / LANES, lane = place % LANES, count = least(rest.count, LANES - lane);
            const ptrdiff_t from = element_of(s, &rest) - (ptrdiff_t)lane * stride;
            int slot = line;
            if (lane == 0) r->from[line] = from;
            else if (from != r->from[line]) slot = lines + r->patches++;
            found[n] = (stretch){rest, slot, lane};
            found[n++].at.count = count;
            if (slot >= lines) r->line[slot - lines] = line, r->from[slot] = from;
            rest.column += count, rest.count -= count, place += count;
        }
    }
    /* Lines after the last position are read nowhere. */
    for (int line = (place + LANES - 1) / LANES; line < lines; line++) r->from[line] = r->from[0] + (ptrdiff_t)line * LANES * stride;
    for (int line = 1; line < lines; line++) r->linear &= r->from[line] == r->from[line - 1] + LANES * stride;
    r->linear &= r->patches == 0;
    return n;
}

static void find_reading(const sparsec_step *s, int64_t position, int lines, reading *r) {
    const sparsec_window *w = &s->window;
    const int stride = w->stride_width;
    stretch stretches[MOST + LINES_1];
    const int n = find_stretches(s, position, lines, r, stretches), slots = (lines + r->patches) * stride;
    uint16_t *bits = r->bits;
    memset(bits, 0, sizeof(uint16_t) * w->height * w->width * slots);
    for (int i = 0; i < w->height; i++) {
        const int down = i * w->dilation_height - w->pad_height;
        for (int j = 0; j < w->width; j++, bits += slots) {
            const int right = j * w->dilation_width - w->pad_width;
            for (int k = 0; k < n; k++) {
                const segment *at = &stretches[k].at;
                const int row = at->row * w->stride_height + down, left = at->column * stride + right;
                if (row < 0 || row >= s->x.height) continue;
                const int first = left < 0 ? (stride - 1 - left) / stride : 0;
                const int stop = least(at->count, (s->x.width - left + stride - 1) / stride);
                if (first >= stop) continue;
                const int lane = stretches[k].lane, slot = stretches[k].slot;
                for (int half = 0; half < stride; half++) {
                    const int begin = stride * (lane + first) - half * LANES, end = stride * (lane + stop) - half * LANES;
                    bits[slot * stride + half] |= bits_of(stride, begin, end);
                }
            }
        }
    }
}

INLINE void copy_lines(
    const int lines, const int stride, const int linear, const sparsec_step *s, const reading *r, const float *x, int first, int stop,
    float *panel
) {
    /* Copies on the stack let the compiler see that stores to the panel do not change them. */
    const sparsec_window w = s->window;
    const int patches = r->patches;
    const ptrdiff_t pitch = s->x.pitch, down = (ptrdiff_t)w.dilation_height * s->x.width, right = w.dilation_width;
    const float *corner = x + first * pitch - (ptrdiff_t)w.pad_height * s->x.width - w.pad_width;
    for (int channel = first; channel < stop; channel++, corner += pitch) {
        const uint16_t *bits = r->bits;
        for (int i = 0; i < w.height; i++) {
            const float *from = corner + i * down;
            for (int j = 0; j < w.width; j++, from += right, panel += lines * LANES) {
#pragma GCC unroll 8
                for (int k = 0; k < lines; k++, bits += stride) {
                    const ptrdiff_t start = linear ? r->from[0] + k * LANES * stride : r->from[k];
                    store(panel + k * LANES, read_line(stride, from + start, bits));
                }
                if (linear) continue;
                for (int k = 0; k < patches; k++, bits += stride) {
                    float *to = panel + r->line[k] * LANES;
                    store(to, (vec)((ivec)load(to) | (ivec)read_line(stride, from + r->from[lines + k], bits)));
                }
            }
        }
    }
}

#define COPY(lines) \
    case lines: \
        if (r->linear) copy_lines(lines, stride, 1, s, r, x, first, stop, panel); \
        else copy_lines(lines, stride, 0, s, r, x, first, stop, panel); \
        break;

INLINE void make_read(
    const int stride, const sparsec_step *s, const float *x, int first, int stop, int64_t position, int lines, float *panel
) {
    /* The reading lies behind the panel, from the first block of a tile to the last. */
    reading *r = (reading *)(panel + panel_floats(s));
    r->bits = (uint16_t *)(r + 1);
    if (first == 0) find_reading(s, position, lines, r);
    switch (lines) { COPY(1) COPY(2) COPY(3) COPY(4) COPY(5) COPY(6) COPY(7) COPY(8) }
}

static void make_1(const sparsec_step *s, const float *x, int first, int stop, int64_t position, int lines, float *panel) {
    make_read(1, s, x, first, stop, position, lines, panel);
}

static void make_2(const sparsec_step *s, const float *x, int first, int stop, int64_t position, int lines, float *panel) {
    make_read(2, s, x, first, stop, position, lines, panel);
}

int64_t SIZE(unrolled)(const sparsec_step *s) {
    const int stride = s->window.stride_width;
    const int64_t bits = (int64_t)s->window.height * s->window.width * (LINES_1 + MOST) * stride;
    const int64_t beside = stride <= 2 ? (int64_t)(sizeof(reading) + sizeof(uint16_t) * bits) : 0;
    return panel_floats(s) * (int64_t)sizeof(float) + beside;
}

void NAME(unrolled)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    switch (s->window.stride_width) {
        case 1: run_pieces(s, memory, scratch, part, parts, make_1); break;
        case 2: run_pieces(s, memory, scratch, part, parts, make_2); break;
        default: run_pieces(s, memory, scratch, part, parts, make_any);
    }
}
