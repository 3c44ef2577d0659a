/*
 * Convolutions with a dense matrix and any window, which are best where there are few channels.
 *
 * A band of rows of positions of one sample is computed at a time. For it a panel is copied from x, [channels, input row,
 * column by phase]: columns of one phase lie together, so that what an element of the window meets in neighbouring positions
 * does too, and there are zeros where the window leaves the input. A tile is a few rows of the matrix for a few lines of the
 * band. Its sums are held in registers: what an element of the window meets is read once for all rows, and a weight once for
 * all lines.
 */
#include "rows.h"

enum {
    MOST_SUMS = WIDE ? 24 : 12,   /* vectors of sums in a tile */
    MOST_WIDE = 4,                /* lines of a tile */
    PANEL_FLOATS = 1 << 15,       /* the size that a panel has at most, where a single row allows it */
};

typedef struct {
    int across, rows;                         /* lines in a row of positions, rows of positions in a band */
    ptrdiff_t phase_pitch, row_pitch, channel_pitch;
    float *panel;
    int32_t *offsets;                         /* floats into the panel of what each column of the matrix meets */
    int32_t *lines;                           /* floats into the panel of what each line of a band meets */
    line_place *places;                       /* of each line in a row of y */
    int64_t bytes;
} direct_plan;

static direct_plan plan_direct(const sparsec_step *s, void *scratch) {
    direct_plan p;
    const sparsec_filters *f = s->weights;
    const sparsec_window *w = &s->window;
    const int furthest = (w->width - 1) * w->dilation_width / w->stride_width;
    p.across = (s->y.width + LANES - 1) / LANES;
    /* What lines meet beyond their positions means nothing, and may be of the next phase. */
    p.phase_pitch = round_up(s->y.width + furthest, LANES);
    p.row_pitch = p.phase_pitch * w->stride_width;
    p.rows = s->y.height;
    while (p.rows > 1 && f->channels * rows_read(w, p.rows) * p.row_pitch > PANEL_FLOATS) p.rows = (p.rows + 1) / 2;
    p.channel_pitch = rows_read(w, p.rows) * p.row_pitch;
    arena from = {scratch, 0};
    p.offsets = take(&from, sizeof(int32_t) * f->channels * f->taps);
    p.lines = take(&from, sizeof(int32_t) * p.rows * p.across);
    p.places = take(&from, sizeof(line_place) * p.rows * p.across);
    p.panel = take(&from, sizeof(float) * (f->channels * p.channel_pitch + LANES));
    p.bytes = from.used;
    return p;
}

int64_t SIZE(direct)(const sparsec_step *s) { return plan_direct(s, NULL).bytes; }

static void find_offsets(const direct_plan *p, const sparsec_step *s) {
    const sparsec_filters *f = s->weights;
    const sparsec_window *w = &s->window;
    const int channels = f->channels, height = w->height, width = w->width, stride = w->stride_width, apart = w->dilation_width;
    int32_t *offset = p->offsets;
    for (int i = 0; i < height; i++) {
        const ptrdiff_t of_row = i * w->dilation_height * p->row_pitch;
        for (int j = 0, phase = 0, column = 0; j < width; j++, phase += apart) {
            for (; phase >= stride; phase -= stride) column++;
            const ptrdiff_t place = of_row + phase * p->phase_pitch + column;
            for (int channel = 0; channel < channels; channel++) *offset++ = (int32_t)(place + channel * p->channel_pitch);
        }
    }
}

/* The panel of the band that begins at `row`; what is written beyond a phase is overwritten, but for the last. */
INLINE void copy_panel(const int stride, const direct_plan *p, const sparsec_step *s, const float *x, int row, int rows) {
    const sparsec_window w = s->window;
    const int channels = s->x.channels, height = s->x.height, width = s->x.width;
    const int top = row * w.stride_height - w.pad_height, read = rows_read(&w, rows);
    for (int channel = 0; channel < channels; channel++) {
        const float *plane = x + channel * s->x.pitch;
        float *to = p->panel + channel * p->channel_pitch;
        for (int at = top; at < top + read; at++) {
            for (int phase = 0; phase < w.stride_width; phase++, to += p->phase_pitch) {
                if (at < 0 || at >= height) clear_row(to, (int)p->phase_pitch);
                else {
                    const float *from = plane + (ptrdiff_t)at * width;
                    copy_row(stride, w.stride_width, to, from, phase - w.pad_width, width, (int)p->phase_pitch);
                }
            }
        }
    }
}

/* The same where neighbours meet neighbours: the same vector of every row in turn, since all need the same of its lanes. */
static void copy_plain(const direct_plan *p, const sparsec_step *s, const float *x, int row, int rows) {
    const sparsec_window w = s->window;
    const int channels = s->x.channels, height = s->x.height, width = s->x.width;
    const int top = row * w.stride_height - w.pad_height, read = rows_read(&w, rows), first = most(top, 0);
    const int above = least(first - top, read), inside = most(least(top + read, height) - first, 0);
    const ptrdiff_t pitch = p->row_pitch;
    for (int channel = 0; channel < channels; channel++) {
        float *to = p->panel + channel * p->channel_pitch;
        clear_row(to, (int)(above * pitch));
        to += above * pitch;
        for (int column = 0; column < pitch; column += LANES) {
            const float *from = x + channel * s->x.pitch + (ptrdiff_t)first * width + column - w.pad_width;
            const lanes which = lanes_of(w.pad_width - column, width + w.pad_width - column);
            for (int i = 0; i < inside; i++, from += width) store(to + i * pitch + column, load_lanes(from, which));
        }
        clear_row(to + inside * pitch, (int)((read - above - inside) * pitch));
    }
}

static void make_panel(const direct_plan *p, const sparsec_step *s, const float *x, int row, int rows) {
    switch (s->window.stride_width) {
        case 1: copy_plain(p, s, x, row, rows); break;
        case 2: copy_panel(2, p, s, x, row, rows); break;
        default: copy_panel(0, p, s, x, row, rows);
    }
}

/*
 * Where the lines of a band are. Those at the end of a row of positions are written whole where what they overwrite is computed
 * after them: before row `stop`, if no residual is there still to be read.
 */
static void find_lines(const direct_plan *p, const sparsec_step *s, int row, int rows, int stop) {
    const int width = s->y.width, across = p->across, end = s->residual.base < 0 ? stop * width : 0;
    const ptrdiff_t down = s->window.stride_height * p->row_pitch;
    const lanes all = lanes_of(0, LANES), rest = lanes_of(0, width - (across - 1) * LANES);
    int32_t *line = p->lines;
    line_place *to = p->places;
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < across; j++, line++, to++) {
            to->place = (row + i) * width + j * LANES;
            to->which = j < across - 1 || to->place + LANES <= end ? all : rest;
            *line = (int32_t)(i * down + j * LANES);
        }
    }
}

/* A tile: `rows` of a group of the matrix, and some lines of the band. Pointers are those of its first row and line. */
typedef struct {
    const float *weights, *panel, *bias, *residual;
    const int32_t *offsets, *lines;
    const line_place *places;
    float *y;
    ptrdiff_t residual_pitch, y_pitch;
    int columns, rows;
    float low, high;
} direct_tile;

INLINE void add_tile(const int height, const int lines, const direct_tile *given) {
    const direct_tile t = *given;
    vec sums[8][MOST_WIDE];
    const float *from[MOST_WIDE];
#pragma GCC unroll 4
    for (int j = 0; j < lines; j++) from[j] = t.panel + t.lines[j];
#pragma GCC unroll 8
    for (int i = 0; i < height; i++) {
        const vec bias = splat(t.bias && i < t.rows ? t.bias[i] : 0.0f);
#pragma GCC unroll 4
        for (int j = 0; j < lines; j++) sums[i][j] = bias;
    }
    const float *weights = t.weights;
    for (int e = 0; e < t.columns; e++, weights += height) {
        const ptrdiff_t offset = t.offsets[e];
        vec met[MOST_WIDE];
#pragma GCC unroll 4
        for (int j = 0; j < lines; j++) met[j] = load(from[j] + offset);
#pragma GCC unroll 8
        for (int i = 0; i < height; i++) {
            const vec weight = splat(weights[i]);
#pragma GCC unroll 4
            for (int j = 0; j < lines; j++) sums[i][j] += weight * met[j];
        }
    }
    const vec low = splat(t.low), high = splat(t.high);
#pragma GCC unroll 8
    for (int i = 0; i < height; i++) {
        if (i >= t.rows) break;
#pragma GCC unroll 4
        for (int j = 0; j < lines; j++) {
            const line_place at = t.places[j];
            if (t.residual) sums[i][j] += load_lanes(t.residual + i * t.residual_pitch + at.place, at.which);
            store_lanes(t.y + i * t.y_pitch + at.place, vclamp(sums[i][j], low, high), at.which);
        }
    }
}

typedef void tile_adder(const direct_tile *t);

#define TILE(height, lines) \
    static void add_##height##x##lines(const direct_tile *t) { add_tile(height, lines, t); }
#define TILES(X) X(2, 1) X(2, 2) X(2, 3) X(2, 4) X(4, 1) X(4, 2) X(4, 3) X(6, 1) X(6, 2)
#define WIDE_TILES(X) X(4, 4) X(6, 3) X(6, 4) X(8, 1) X(8, 2) X(8, 3)
TILES(TILE)
#if WIDE
WIDE_TILES(TILE)
#endif

static tile_adder *adder_of(int height, int lines) {
#define PICK(h, l) \
    if (height == h && lines == l) return add_##h##x##l;
    TILES(PICK)
#if WIDE
    WIDE_TILES(PICK)
#endif
#undef PICK
    return NULL;
}

/* Some rows of positions of a sample. */
static void run_band(const direct_plan *p, const sparsec_step *s, float *const *memory, int sample, int row, int rows) {
    const sparsec_filters *f = s->weights;
    const int count = rows * p->across, widest = least(MOST_WIDE, MOST_SUMS / f->height);
    const int tiles = (count + widest - 1) / widest, lines = count / tiles, over = count % tiles;
    tile_adder *const add[] = {adder_of(f->height, lines), adder_of(f->height, lines + 1)};
    const int64_t plane = (int64_t)s->y.height * s->y.width, begin = sample * plane;
    direct_tile t = {.panel = p->panel, .offsets = p->offsets, .weights = f->values, .columns = f->channels * f->taps};
    t.low = s->low, t.high = s->high;
    t.y_pitch = s->y.pitch, t.residual_pitch = s->residual.pitch;
    for (int first = 0; first < f->rows; first += f->height, t.weights += (ptrdiff_t)t.columns * f->height) {
        t.rows = least(f->height, f->rows - first);
        t.bias = s->bias ? s->bias + first : NULL;
        t.y = row_of(&s->y, memory, first) + begin;
        t.residual = s->residual.base >= 0 ? row_of(&s->residual, memory, first) + begin : NULL;
        t.lines = p->lines;
        t.places = p->places;
        for (int tile = 0; tile < tiles; tile++) {
            const int wider = tile < over;
            add[wider](&t);
            t.lines += lines + wider;
            t.places += lines + wider;
        }
    }
    if (!s->posts) return;
    for (int i = 0; i < f->rows; i++) NAME(post)(s, memory, i, begin + (int64_t)row * s->y.width, (int64_t)rows * s->y.width);
}

void NAME(direct)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    const direct_plan p = plan_direct(s, scratch);
    const int height = s->y.height;
    const int64_t all = (int64_t)s->y.samples * height, end = share(all, part + 1, parts);
    find_offsets(&p, s);
    for (int64_t at = share(all, part, parts); at < end;) {
        const int sample = (int)(at / height), row = (int)(at % height);
        const int stop = end - at < height - row ? row + (int)(end - at) : height, rows = least(p.rows, stop - row);
        const float *x = row_of(&s->x, memory, 0) + (ptrdiff_t)sample * s->x.height * s->x.width;
        make_panel(&p, s, x, row, rows);
        find_lines(&p, s, row, rows, stop);
        run_band(&p, s, memory, sample, row, rows);
        at += rows;
    }
}
