/*
 * Depthwise convolutions: every channel has a window of its own.
 *
 * Windows of 3x3, 5x5 and 7x7 that move by one, or the first two by two, read the input where it is: a tile is one vector of
 * some rows of the output, whose sums are held in registers while the rows of the input go by; each vector that is read serves
 * all the sums it is part of. Where a window leaves the input, lanes are masked off to the left and right, and rows of zeros are
 * above and below. Planes so small that they fit in a few vectors are held in registers whole. Every other window, and every
 * window where reads cannot be masked, first has the plane copied out, with zeros around it.
 */
#include "vector.h"

/* A plane of the output and what it is computed from. */
typedef struct {
    const float *x, *weights, *residual; /* no residual: null */
    float bias;
    float *y;
    int64_t room; /* floats that may be written from y on */
} plane;

/* ---- any window ------------------------------------------------------------------------------------------------------- */

/*
 * A copy of what some rows of the output read: planes [down, across], one for each way in which a row and a column can lie
 * between two places of the window. What an element of the window meets in positions that follow one another lies together
 * there, `across` floats from what it meets a row of positions below.
 */
typedef struct {
    int rows;                    /* of the output, in a strip */
    int64_t down, across, plane; /* of the copy */
    int64_t *offsets;            /* of each element of the window */
    float *copy, *sums;
    int64_t bytes;
} spread_plan;

enum {
    STRIP = 4096,      /* about so many positions are computed from one copy */
    AT_ONCE = 4 * LANES /* positions that share the loads of a weight */
};

static spread_plan plan_spread(const sparsec_step *s, void *scratch) {
    const sparsec_window *w = &s->window;
    spread_plan p;
    p.across = s->y.width + (int64_t)(w->width - 1) * w->dilation_width / w->stride_width;
    p.rows = least(s->y.height, most(1, (int)(STRIP / p.across)));
    p.down = p.rows + (int64_t)(w->height - 1) * w->dilation_height / w->stride_height;
    p.plane = p.down * p.across;
    arena from = {scratch, 0};
    p.offsets = take(&from, sizeof(int64_t) * w->height * w->width);
    p.copy = take(&from, sizeof(float) * (w->stride_height * w->stride_width * p.plane + AT_ONCE));
    p.sums = take(&from, sizeof(float) * (p.rows * p.across + AT_ONCE));
    p.bytes = from.used;
    return p;
}

static void find_offsets(const spread_plan *p, const sparsec_window *w) {
    for (int tap = 0; tap < w->height * w->width; tap++) {
        const int64_t row = (int64_t)(tap / w->width) * w->dilation_height;
        const int64_t column = (int64_t)(tap % w->width) * w->dilation_width;
        const int64_t plane = row % w->stride_height * w->stride_width + column % w->stride_width;
        p->offsets[tap] = plane * p->plane + row / w->stride_height * p->across + column / w->stride_width;
    }
}

/* to[i] = row[first + i * stride], or zero where that is outside the row. */
static void copy_row(float *to, int64_t count, const float *row, int64_t first, int stride, int64_t width) {
    if (stride == 1) {
        const int64_t begin = first < 0 ? -first : 0, end = width - first < count ? width - first : count;
        if (begin >= end) {
            memset(to, 0, sizeof(float) * count);
            return;
        }
        memset(to, 0, sizeof(float) * begin);
        memcpy(to + begin, row + first + begin, sizeof(float) * (end - begin));
        memset(to + end, 0, sizeof(float) * (count - end));
        return;
    }
    for (int64_t i = 0, at = first; i < count; i++, at += stride) to[i] = at >= 0 && at < width ? row[at] : 0.0f;
}

static void spread(const spread_plan *p, const sparsec_step *s, const float *x, int first_row) {
    const sparsec_window *w = &s->window;
    float *to = p->copy;
    for (int phase = 0; phase < w->stride_height; phase++) {
        for (int shift = 0; shift < w->stride_width; shift++) {
            for (int64_t i = 0; i < p->down; i++, to += p->across) {
                const int64_t row = (first_row + i) * w->stride_height + phase - w->pad_height;
                if (row < 0 || row >= s->x.height) memset(to, 0, sizeof(float) * p->across);
                else copy_row(to, p->across, x + row * s->x.width, shift - w->pad_width, w->stride_width, s->x.width);
            }
        }
    }
}

/* The sums of positions 0 <= i < count of the copy, of which those that no row of the output has mean nothing. */
static void add_taps(const spread_plan *p, const float *weights, int taps, float bias, int64_t count) {
    for (int64_t i = 0; i < count; i += AT_ONCE) {
        vec a = splat(bias), b = a, c = a, d = a;
        for (int tap = 0; tap < taps; tap++) {
            const float *from = p->copy + p->offsets[tap] + i;
            const vec weight = splat(weights[tap]);
            a += weight * load(from);
            b += weight * load(from + LANES);
            c += weight * load(from + 2 * LANES);
            d += weight * load(from + 3 * LANES);
        }
        store(p->sums + i, a);
        store(p->sums + i + LANES, b);
        store(p->sums + i + 2 * LANES, c);
        store(p->sums + i + 3 * LANES, d);
    }
}

static void copy_sums(const sparsec_step *s, const float *from, const float *residual, float *y, int count) {
    const vec low = splat(s->low), high = splat(s->high);
    int i = 0;
    for (; i + LANES <= count; i += LANES) {
        const vec sum = residual ? (vec)(load(from + i) + load(residual + i)) : load(from + i);
        store(y + i, vclamp(sum, low, high));
    }
    for (; i < count; i++) y[i] = clamp(residual ? from[i] + residual[i] : from[i], s->low, s->high);
}

static void run_spread(const void *plan, const sparsec_step *s, const plane *of) {
    const spread_plan *p = plan;
    const int width = s->y.width;
    for (int row = 0; row < s->y.height; row += p->rows) {
        const int rows = least(p->rows, s->y.height - row);
        spread(p, s, of->x, row);
        add_taps(p, of->weights, s->window.height * s->window.width, of->bias, (rows - 1) * p->across + width);
        for (int i = 0; i < rows; i++) {
            const int64_t place = (int64_t)(row + i) * width;
            copy_sums(s, p->sums + i * p->across, of->residual ? of->residual + place : NULL, of->y + place, width);
        }
    }
}

/* ---- windows of 3x3, 5x5 and 7x7 -------------------------------------------------------------------------------------- */

#if SPARSEC_BYTES >= 32

enum {
    TALL = LANES == 16 ? 7 : 4,       /* the most rows of a tile */
    LARGEST = 7,    /* the largest window */
    MASKS = LARGEST + 1,
    SMALL = 4,      /* the most vectors of a small plane */
    SMALL_WINDOW = 5, /* the largest window over one */
    NEAR = 2048,    /* floats of a row of the input that are read again and again */
};

/* Which lanes of what is read lie in the input: all; some; some of the first vector. */
enum { WHOLE, MASKED, NARROW };

typedef struct {
    int columns;           /* how many vectors a row of the output has */
    int begin, end;        /* the vectors for which nothing is masked off: begin <= i < end */
    int tall;              /* rows that are computed vector by vector, so that what they read stays in the cache */
    lanes (*masks)[MASKS]; /* of each vector */
    float *zeros;          /* a row of x */
    const float **rows;    /* where each row is that the output reads */
    int64_t bytes;
} direct_plan;

/* The first position of a vector in its row: the last vector goes back so as to end with the row. */
INLINE int first_of(const sparsec_step *s, int column) { return least(column * LANES, most(s->y.width - LANES, 0)); }

#if SPARSEC_BYTES == 64
/* Lane i is lane places[i] of a, and of b from 16 on. */
INLINE vec picked(vec a, ivec places, vec b) { return (vec)_mm512_permutex2var_ps((__m512)a, (__m512i)places, (__m512)b); }
#endif

/*
 * x[k] = from[k + i * stride] for the lanes i. Every read has a mask, which counts where `masked`: with a stride of one, one for
 * each k; else LANES apart from one another, of which a pair is read for every second k, or, where lanes of two vectors can be
 * picked by one instruction, three for all.
 */
INLINE void read_row(const int size, const int stride, const int masked, const float *from, const lanes *which, vec *x) {
#define READ(place, mask) (masked != WHOLE ? load_lanes(from + (place), which[mask]) : load(from + (place)))
    if (stride == 1) {
#pragma GCC unroll 8
        for (int k = 0; k < size; k++) x[k] = READ(k, k);
        return;
    }
#if SPARSEC_BYTES == 64
    const vec a = READ(0, 0);
    if (masked == NARROW) {
#pragma GCC unroll 8
        for (int k = 0; k < size; k++) {
            x[k] = picked(a, (ivec){0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30} + k, (vec){0});
        }
        return;
    }
    const vec b = READ(LANES, 1), c = READ(2 * LANES, 2);
    x[0] = evens(a, b);
    x[1] = odds(a, b);
    x[2] = picked(x[0], (ivec){1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, c);
    if (size == 5) {
        x[3] = picked(x[1], (ivec){1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17}, c);
        x[4] = picked(x[0], (ivec){2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18}, c);
    }
#else
#pragma GCC unroll 8
    for (int k = 0; k < size; k += 2) {
        const vec a = READ(k, k), b = READ(k + LANES, k + 1);
        x[k] = evens(a, b);
        if (k + 1 < size) x[k + 1] = odds(a, b);
    }
#endif
#undef READ
}

/* Where read m of a row begins, after the first float. */
INLINE int read_place(int size, int stride, int m) {
    if (stride == 1) return m;
#if SPARSEC_BYTES == 64
    return (void)size, m * LANES;
#else
    return (void)size, m / 2 * 2 + m % 2 * LANES;
#endif
}

/* How many reads there are. */
INLINE int reads(int size, int stride) {
    if (stride == 1) return size;
#if SPARSEC_BYTES == 64
    return 3;
#else
    return size + 1;
#endif
}

/* One vector of some rows, from one on. */
typedef struct {
    const float *const *rows; /* of x, from the first that the window is over on */
    int64_t left;             /* where in them the reads begin */
    lanes which[MASKS];       /* the masks of the reads */
    float *y, *end;           /* where the sums go; whole vectors may be written up to there */
    const float *residual;
    int64_t width;            /* floats from a row to the next of y and of the residual */
    lanes written;            /* the lanes that were not written before */
    vec bias, low, high;
} column;

/*
 * The sums of a tile, one vector of `count` rows. What is written beyond a row is the beginning of a row that is computed later. A
 * residual may lie where y does, so then everything is read and written once.
 */
INLINE void add_tile(const int size, const int stride, const int count, const int masked, const column *c, const vec *weights) {
    const int ways = stride == 1 ? 2 : 1; /* sums of a row, of every other column: each addition waits for the one before */
    vec sums[TALL], more[TALL];
#pragma GCC unroll 8
    for (int t = 0; t < count; t++) sums[t] = c->bias, more[t] = (vec){0};
#pragma GCC unroll 32
    for (int i = 0; i < (count - 1) * stride + size; i++) {
        vec x[LARGEST];
        read_row(size, stride, masked, c->rows[i] + c->left, c->which, x);
#pragma GCC unroll 8
        for (int k = 0; k < size; k++) {
#pragma GCC unroll 8
            for (int t = 0; t < count; t++) {
                const int tap = i - t * stride;
                if (tap < 0 || tap >= size) continue;
                if (k % ways) more[t] += weights[tap * size + k] * x[k];
                else sums[t] += weights[tap * size + k] * x[k];
            }
        }
    }
    if (ways > 1) {
#pragma GCC unroll 8
        for (int t = 0; t < count; t++) sums[t] += more[t];
    }
    if (c->residual) {
#pragma GCC unroll 8
        for (int t = 0; t < count; t++) sums[t] += load_lanes(c->residual + t * c->width, c->written);
    }
    const int whole = LANES < 16 && !c->residual && c->y + (count - 1) * c->width + LANES <= c->end;
#pragma GCC unroll 8
    for (int t = 0; t < count; t++) {
        const vec sum = vclamp(sums[t], c->low, c->high);
        if (whole) store(c->y + t * c->width, sum);
        else store_lanes(c->y + t * c->width, sum, c->written);
    }
}

INLINE void move_down(const int stride, const int count, column *c) {
    c->rows += count * stride;
    c->y += count * c->width;
    if (c->residual) c->residual += count * c->width;
}

INLINE void add_column(const int size, const int stride, const int masked, column c, const vec *weights, int rows) {
    for (; rows >= TALL; rows -= TALL, move_down(stride, TALL, &c)) add_tile(size, stride, TALL, masked, &c, weights);
    for (; rows >= 4; rows -= 4, move_down(stride, 4, &c)) add_tile(size, stride, 4, masked, &c, weights);
    if (rows & 2) {
        add_tile(size, stride, 2, masked, &c, weights);
        move_down(stride, 2, &c);
    }
    if (rows & 1) add_tile(size, stride, 1, masked, &c, weights);
}

INLINE void add_strips(const int size, const int stride, const direct_plan *p, const sparsec_step *s, const plane *of) {
    vec weights[LARGEST * LARGEST];
#pragma GCC unroll 64
    for (int i = 0; i < size * size; i++) weights[i] = splat(of->weights[i]);
    const int64_t width = s->y.width;
    column c = {.end = of->y + of->room, .width = width, .bias = splat(of->bias), .low = splat(s->low), .high = splat(s->high)};
    for (int first = 0; first < s->y.height; first += p->tall) {
        const int rows = least(p->tall, s->y.height - first);
        for (int i = 0; i < p->columns; i++) {
            const int at = first_of(s, i);
            c.rows = p->rows + first * stride;
            c.left = (int64_t)at * stride - s->window.pad_width;
#pragma GCC unroll 8
            for (int m = 0; m < reads(size, stride); m++) c.which[m] = p->masks[i][m];
            c.y = of->y + first * width + at;
            c.residual = of->residual ? of->residual + first * width + at : NULL;
            c.written = lanes_of(of->residual ? i * LANES - at : 0, least(s->y.width, LANES));
            if (i >= p->begin && i < p->end) add_column(size, stride, WHOLE, c, weights, rows);
            else if (c.left + LANES >= s->x.width && s->y.width < LANES - 2) add_column(size, stride, NARROW, c, weights, rows);
            else add_column(size, stride, MASKED, c, weights, rows);
        }
    }
}

#define STRIPS(size, stride) \
    static void strips_##size##_##stride(const direct_plan *p, const sparsec_step *s, const plane *of) { \
        add_strips(size, stride, p, s, of); \
    }
STRIPS(3, 1)
STRIPS(3, 2)
STRIPS(5, 1)
STRIPS(5, 2)
STRIPS(7, 1)

typedef void strips_runner(const direct_plan *p, const sparsec_step *s, const plane *of);

static strips_runner *strips_of(const sparsec_window *w) {
    const int size = w->width, stride = w->stride_width;
    if (w->height != size || w->stride_height != stride || w->dilation_height != 1 || w->dilation_width != 1) return NULL;
    if (stride == 2) return size == 3 ? strips_3_2 : size == 5 ? strips_5_2 : NULL;
    if (stride != 1) return NULL;
    return size == 3 ? strips_3_1 : size == 5 ? strips_5_1 : size == 7 ? strips_7_1 : NULL;
}

static int is_direct(const sparsec_window *w) { return strips_of(w) != NULL; }

static int rows_read(const sparsec_step *s) { return (s->y.height - 1) * s->window.stride_height + s->window.height; }

static direct_plan plan_direct(const sparsec_step *s, void *scratch) {
    direct_plan p = {.columns = (s->y.width + LANES - 1) / LANES};
    p.tall = most(TALL, NEAR / (s->x.width * s->window.stride_height) / TALL * TALL);
    arena from = {scratch, 0};
    p.masks = take(&from, sizeof(*p.masks) * p.columns);
    p.zeros = take(&from, sizeof(float) * s->x.width);
    p.rows = take(&from, sizeof(float *) * rows_read(s));
    p.bytes = from.used;
    return p;
}

static void find_masks(direct_plan *p, const sparsec_step *s) {
    const int size = s->window.width, stride = s->window.stride_width, width = s->x.width;
    memset(p->zeros, 0, sizeof(float) * width);
    for (int i = 0; i < rows_read(s); i++) p->rows[i] = p->zeros;
    p->begin = p->columns;
    p->end = 0;
    for (int column = 0; column < p->columns; column++) {
        const int64_t left = (int64_t)first_of(s, column) * stride - s->window.pad_width;
        int whole = left >= 0;
        for (int m = 0; m < reads(size, stride); m++) {
            const int64_t at = left + read_place(size, stride, m);
            const int first = at < -LANES ? LANES : at < 0 ? (int)-at : 0;
            const int stop = width - at > LANES ? LANES : width < at ? 0 : (int)(width - at);
            p->masks[column][m] = lanes_of(first, stop);
            whole &= stop == LANES;
        }
        if (whole) {
            p->begin = least(p->begin, column);
            p->end = column + 1;
        }
    }
}

static void run_direct(const void *plan, const sparsec_step *s, const plane *of) {
    const direct_plan *p = plan;
    const sparsec_window *w = &s->window;
    const float *x = of->x;
    for (int i = w->pad_height; i < least(rows_read(s), w->pad_height + s->x.height); i++, x += s->x.width) p->rows[i] = x;
    strips_of(w)(p, s, of);
}

/* ---- small planes ----------------------------------------------------------------------------------------------------- */

#if SPARSEC_BYTES == 64

/* The positions of the plane follow one another in the vectors, whatever rows they are of. */
typedef struct {
    int vectors;
    lanes masks[SMALL_WINDOW][SMALL]; /* where column k of the window meets the input */
    lanes rest;                       /* the lanes of the last vector that the plane has */
} small_plan;

static int is_small(const sparsec_step *s) {
    const sparsec_window *w = &s->window;
    const int reach = most(w->pad_height, w->height - 1 - w->pad_height) * s->x.width;
    return is_direct(w) && w->width <= SMALL_WINDOW && w->stride_width == 1 && s->x.height == s->y.height && s->x.width == s->y.width &&
           s->y.height * s->y.width <= SMALL * LANES && reach <= LANES && w->pad_height < w->height;
}

static small_plan plan_small(const sparsec_step *s) {
    const int count = s->y.height * s->y.width, width = s->y.width;
    small_plan p = {.vectors = (count + LANES - 1) / LANES};
    for (int k = 0; k < s->window.width; k++) {
        for (int i = 0; i < count; i++) {
            const int column = i % width + k - s->window.pad_width;
            p.masks[k][i / LANES] |= (lanes)((column >= 0 && column < width) << i % LANES);
        }
    }
    p.rest = lanes_of(0, count - (p.vectors - 1) * LANES);
    return p;
}

/*
 * Row k of the window yields sums for the positions that it is over; those of the others lie a multiple of the width away, in the
 * same vector and one beside it.
 */
INLINE void add_plane(
    const int size, const int vectors, const small_plan *p, const sparsec_step *s, const plane *of
) {
    const float *x = of->x, *weights = of->weights;
    vec from[SMALL_WINDOW][SMALL], sums[SMALL];
    const int width = s->y.width, above = s->window.pad_height;
#pragma GCC unroll 8
    for (int k = 0; k < size; k++) {
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) from[k][j] = load_lanes(x + j * LANES + k - s->window.pad_width, p->masks[k][j]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < vectors; j++) sums[j] = splat(of->bias);
#pragma GCC unroll 8
    for (int row = 0; row < size; row++) {
        vec part[SMALL + 2];
        part[0] = part[vectors + 1] = (vec){0};
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) {
            part[j + 1] = from[0][j] * splat(weights[row * size]);
#pragma GCC unroll 8
            for (int k = 1; k < size; k++) part[j + 1] += from[k][j] * splat(weights[row * size + k]);
        }
        const int away = (row - above) * width, before = away < 0;
        const ivec places = (ivec){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} + (before ? away + LANES : away);
        if (before) {
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++) sums[j] += picked(part[j], places, part[j + 1]);
        } else {
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++) sums[j] += picked(part[j + 1], places, part[j + 2]);
        }
    }
    const vec low = splat(s->low), high = splat(s->high);
#pragma GCC unroll 4
    for (int j = 0; j < vectors; j++) {
        const lanes which = j == vectors - 1 ? p->rest : lanes_of(0, LANES);
        if (of->residual) sums[j] += load_lanes(of->residual + j * LANES, which);
        store_lanes(of->y + j * LANES, vclamp(sums[j], low, high), which);
    }
}

static void run_small(const void *plan, const sparsec_step *s, const plane *of) {
    const small_plan *p = plan;
#define PLANE(size, vectors) \
    case vectors: add_plane(size, vectors, p, s, of); break;
    if (s->window.width == 3) {
        switch (p->vectors) { PLANE(3, 1) PLANE(3, 2) PLANE(3, 3) PLANE(3, 4) }
    } else {
        switch (p->vectors) { PLANE(5, 1) PLANE(5, 2) PLANE(5, 3) PLANE(5, 4) }
    }
#undef PLANE
}

#endif

#endif

/* ---- the kernel ------------------------------------------------------------------------------------------------------- */

enum {
    POSTED = 4096, /* floats of several rows */
};

typedef void plane_runner(const void *plan, const sparsec_step *s, const plane *of);

static void run_row(const sparsec_step *s, float *const *memory, int64_t row, plane_runner *run, const void *plan) {
    const int64_t size_x = (int64_t)s->x.height * s->x.width, size_y = (int64_t)s->y.height * s->y.width;
    plane of = {.x = row_of(&s->x, memory, row / s->options[0]), .y = row_of(&s->y, memory, row), .room = s->y.pitch};
    of.weights = (const float *)s->weights + row * s->window.height * s->window.width;
    of.bias = s->bias ? s->bias[row] : 0.0f;
    of.residual = s->residual.base >= 0 ? row_of(&s->residual, memory, row) : NULL;
    for (int n = 0; n < s->y.samples; n++) {
        run(plan, s, &of);
        of.x += size_x, of.y += size_y, of.room -= size_y;
        if (of.residual) of.residual += size_y;
    }
}

/* What follows is done for some rows at once, while they are in the first-level cache if they are short. */
static void run_planes(
    const sparsec_step *s, float *const *memory, int part, int parts, plane_runner *run, const void *plan
) {
    const int64_t begin = share(s->y.channels, part, parts), end = share(s->y.channels, part + 1, parts);
    const int64_t at_once = s->y.pitch < POSTED ? POSTED / s->y.pitch : 1;
    for (int64_t first = begin; first < end; first += at_once) {
        const int64_t rows = end - first < at_once ? end - first : at_once;
        for (int64_t row = first; row < first + rows; row++) run_row(s, memory, row, run, plan);
        if (s->posts) NAME(post_rows)(s, memory, first, rows, 0, positions(&s->y));
    }
}

int64_t SIZE(depthwise)(const sparsec_step *s) {
#if SPARSEC_BYTES == 64
    if (is_small(s)) return 0;
#endif
#if SPARSEC_BYTES >= 32
    if (is_direct(&s->window)) return plan_direct(s, NULL).bytes;
#endif
    return plan_spread(s, NULL).bytes;
}

void NAME(depthwise)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
#if SPARSEC_BYTES == 64
    if (is_small(s)) {
        const small_plan small = plan_small(s);
        run_planes(s, memory, part, parts, run_small, &small);
        return;
    }
#endif
#if SPARSEC_BYTES >= 32
    if (is_direct(&s->window)) {
        direct_plan direct = plan_direct(s, scratch);
        find_masks(&direct, s);
        run_planes(s, memory, part, parts, run_direct, &direct);
        return;
    }
#endif
    const spread_plan any = plan_spread(s, scratch);
    find_offsets(&any, &s->window);
    run_planes(s, memory, part, parts, run_spread, &any);
}
