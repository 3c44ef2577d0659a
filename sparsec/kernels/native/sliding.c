/*
 * Convolutions with a sparse matrix and any window without strides, where so few rows meet each column that copies in which
 * they would find it aligned do not pay.
 *
 * A band of rows of positions of one sample is computed at a time. Its panel is a copy of the rows of x that it reads, with
 * zeros where the window leaves the input, or x itself where it never does. Positions are taken in turn without regard to where rows end, in rows as wide as
 * those of the panel: then what an element of the window meets is a constant distance away. The sums of what lies between two
 * rows of positions mean nothing, and are left out where sums are copied to y.
 *
 * Where pools of y are what is wanted, what follows the kernel is done to the sums where they are, and the pools are computed from
 * them.
 */
#include "block.h"
#include "pooled.h"
#include "rows.h"

enum {
    BAND_FLOATS = 1 << 14, /* of the panel and the sums of a band, where a single row allows it */
    NEAR = 1024,           /* the pitch up to which rows of x lie near enough to be read in place */
};

typedef struct {
    int pitch;      /* floats from a row of the panel to the next */
    int rows, lines; /* of positions in a band, and the lines that these take */
    int in_place;   /* whether x is read where it is */
    ptrdiff_t channel_pitch;
    float *panel, *sums;
    int32_t *offsets;
    int64_t bytes;
} sliding_plan;

/* How many times so many rows there are in a sample. */
INLINE int unit_count(const sparsec_step *s) { return s->extra.base >= 0 ? s->extra.height : s->y.height; }

/* Whether x can be read in place: vectors reach as far as a line behind it, where in the arena there is at least scratch memory. */
static int reads_in_place(const sparsec_step *s, int pitch) {
    const sparsec_window *w = &s->window;
    const int inside = w->pad_height == 0 && w->pad_width == 0 && rows_read(w, s->y.height) <= s->x.height;
    return inside && s->x.width == pitch && s->x.pitch <= NEAR && s->x.base == 0;
}

static void cut_bands(sliding_plan *p, const sparsec_step *s, int widest, int most_rows) {
    const sparsec_window *w = &s->window;
    p->pitch = s->y.width + (w->width - 1) * w->dilation_width;
    p->in_place = reads_in_place(s, p->pitch);
    const int unit = unit_rows(s);
    for (int units = unit_count(s);; units = (units + 1) / 2) {
        p->rows = unit * units;
        p->lines = (int)round_up((p->rows - 1) * p->pitch + s->y.width, LANES) / LANES;
        const ptrdiff_t met = round_up(rows_read(w, p->rows) * p->pitch, LINE) + LINE; /* floats of a channel */
        p->channel_pitch = p->in_place ? s->x.pitch : met;
        if (units == 1 || widest * met + (int64_t)most_rows * p->lines * LANES <= BAND_FLOATS) return;
    }
}

static sliding_plan plan_sliding(const sparsec_step *s, void *scratch) {
    sliding_plan p;
    const sparsec_matrix *pieces = s->weights;
    int widest = 0, most_rows = 0;
    for (int i = 0; i < s->pieces; i++) {
        widest = most(widest, widest_block(pieces + i));
        most_rows = most(most_rows, pieces[i].rows);
    }
    cut_bands(&p, s, widest, most_rows);
    arena from = {scratch, 0};
    p.offsets = take(&from, sizeof(int32_t) * widest * pieces->taps);
    p.panel = take(&from, p.in_place ? 0 : sizeof(float) * (widest * p.channel_pitch + LINE));
    /* What is pooled is read in pairs of whole lines. */
    p.sums = take(&from, sizeof(float) * ((int64_t)most_rows * p.lines * LANES + 4 * LANES));
    p.bytes = from.used;
    return p;
}

int64_t SIZE(sliding)(const sparsec_step *s) { return plan_sliding(s, NULL).bytes; }

static void find_offsets(const sliding_plan *p, const sparsec_step *s, int channels) {
    const sparsec_window w = s->window;
    const int taps = w.height * w.width, pitch = (int)(p->channel_pitch * sizeof(float));
    int32_t *offset = p->offsets;
    for (int i = 0; i < w.height; i++) {
        const int place = i * w.dilation_height * p->pitch;
        for (int j = 0; j < w.width; j++) *offset++ = (place + j * w.dilation_width) * (int)sizeof(float);
    }
    /* Those of each channel from those of the one before. */
    for (int channel = 1; channel < channels; channel++, offset += taps) {
        for (int i = 0; i < taps; i++) offset[i] = offset[i - taps] + pitch;
    }
}

/* The panel of channels first <= c < stop for the band that begins at `row`; what is written beyond a row is overwritten. */
static void make_panel(const sliding_plan *p, const sparsec_step *s, const float *x, int first, int stop, int row, int rows) {
    const sparsec_window *w = &s->window;
    const int top = row - w->pad_height, read = rows_read(w, rows), height = s->x.height, width = s->x.width, pitch = p->pitch;
    for (int channel = first; channel < stop; channel++) {
        const float *from = x + channel * s->x.pitch + (ptrdiff_t)top * width;
        float *to = p->panel + (channel - first) * p->channel_pitch;
        for (int at = top; at < top + read; at++, from += width, to += pitch) {
            if (at < 0 || at >= height) clear_row(to, pitch);
            else copy_row(1, 1, to, from, -w->pad_width, width, pitch);
        }
    }
}

/*
 * Copies the sums of a band to y, with the residual and the clamp. Rows of positions are written in whole vectors where what
 * that overwrites is computed later: before row `stop`, if no residual is there still to be read.
 */
static void copy_sums(
    const sliding_plan *p, const sparsec_step *s, const float *residual, float *y, int rows, int row, int count, int stop
) {
    const vec low = splat(s->low), high = splat(s->high);
    const int width = s->y.width, end = residual ? 0 : stop * width;
    const ptrdiff_t pitch = p->pitch, sums_pitch = (ptrdiff_t)p->lines * LANES, y_pitch = s->y.pitch;
    const float *sums = p->sums;
    for (int i = 0; i < rows; i++, sums += sums_pitch, y += y_pitch) {
        const float *from = sums;
        for (int r = row; r < row + count; r++, from += pitch) {
            for (int column = 0, place = r * width; column < width; column += LANES, place += LANES) {
                vec value = load(from + column);
                if (place + LANES <= end) {
                    store(y + place, vclamp(value, low, high));
                    continue;
                }
                const lanes which = lanes_of(0, width - column);
                if (residual) value += load_lanes(residual + i * s->residual.pitch + place, which);
                store_lanes(y + place, vclamp(value, low, high), which);
            }
        }
    }
}

/* The sums of the band whose panels begin at `row`. */
static void add_band(
    const sliding_plan *p, const sparsec_step *s, const sparsec_matrix *m, const float *x, const float *bias, int row, int rows
) {
    const int count = (rows - 1) * p->pitch + s->y.width, lines = (int)round_up(count, LANES) / LANES;
    const int tiles = (lines + most_lines(m) - 1) / most_lines(m);
    target t = {.offsets = p->offsets, .bias = bias, .rows = m->rows};
    t.pitch = t.out_pitch = (ptrdiff_t)p->lines * LANES;
    /* Else it is done where sums are copied. */
    const int clamps = s->extra.base >= 0;
    t.low = clamps ? s->low : -__builtin_inff(), t.high = clamps ? s->high : __builtin_inff();
    cursor at = begin(m);
    for (int b = 0; b < m->blocks; b++) {
        const float *panel = p->panel;
        if (p->in_place) panel = x + m->starts[b] * s->x.pitch + (ptrdiff_t)row * s->x.width;
        else make_panel(p, s, x, m->starts[b], m->starts[b + 1], row, rows);
        t.first = b == 0;
        t.last = b == m->blocks - 1;
        cursor next = at;
        for (int tile = 0; tile < tiles; tile++) {
            const int from = lines * tile / tiles, wide = lines * (tile + 1) / tiles - from;
            const int tail = tail_of(m, count - (from + wide - 1) * LANES);
            t.panel = (const char *)(panel + from * LANES);
            t.sums = t.out = p->sums + from * LANES;
            next = add_block(m, wide, tail, at, b, &t);
        }
        at = next;
    }
}

/* What follows where all is added, for the rows of y that begin at `row` of a sample, before row `stop`. */
static void end_band(
    const sliding_plan *p, const sparsec_step *s, float *const *memory, int64_t first, int count, int64_t sample, int row, int rows,
    int stop
) {
    const int64_t begin = sample * s->y.height * s->y.width, done = begin + (int64_t)row * s->y.width;
    const float *residual = s->residual.base >= 0 ? row_of(&s->residual, memory, first) + begin : NULL;
    copy_sums(p, s, residual, row_of(&s->y, memory, first) + begin, count, row, rows, stop);
    for (int r = 0; s->posts && r < count; r++) NAME(post)(s, memory, first + r, done, (int64_t)rows * s->y.width);
}

void NAME(sliding)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    const sliding_plan p = plan_sliding(s, scratch);
    const sparsec_matrix *pieces = s->weights;
    const int height = unit_count(s), unit = unit_rows(s);
    const portion work = portion_of(s, (int64_t)s->y.samples * height, part, parts);
    int64_t first = 0;
    for (int i = 0; i < work.pieces; first += pieces[i++].rows) {
        if (i < work.piece) continue;
        const sparsec_matrix *m = pieces + i;
        find_offsets(&p, s, widest_block(m));
        for (int64_t at = work.tile; at < work.tiles;) {
            const int64_t sample = at / height;
            const int from = (int)(at % height), stop = (int)(work.tiles - at < height - from ? from + work.tiles - at : height);
            const int row = unit * from, rows = least(p.rows, unit * (stop - from));
            const float *x = row_of(&s->x, memory, 0) + (ptrdiff_t)sample * s->x.height * s->x.width;
            add_band(&p, s, m, x, s->bias ? s->bias + first : NULL, row, rows);
            const sums_band band = {p.sums, (ptrdiff_t)p.lines * LANES, p.pitch, rows};
            if (unit > 1) end_pooled(s, memory, &band, first, m->rows, at);
            else end_band(&p, s, memory, first, m->rows, sample, row, rows, stop);
            at += rows / unit;
        }
    }
}
