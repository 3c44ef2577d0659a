/*
 * Convolutions with a dense matrix and windows of 3x3 or 5x5, without strides, in fewer multiplications (Winograd 1980,
 * Lavin and Gray 2016): two rows of positions take one for each of the points of POINTS and one more, in place of one for each
 * row of the window twice.
 *
 * Two rows of positions are computed at a time. Their panel is made of the rows of x that they read: as polynomials in which the
 * coefficients are rows, these are evaluated so that a product with the matrix, which is evaluated at the points, gives sums of
 * which each row of positions is a simple combination. There are zeros where the window leaves the input. A tile is a group of
 * rows of the matrix for one line of both rows of positions; all its sums are held in registers. A value of x that is not finite
 * reaches both, also where but one of them meets it.
 *
 * Where pools of y are what is wanted, the sums of a band of rows are kept, and the pools are computed from them.
 */
#include "pooled.h"
#include "rows.h"

enum {
    MOST_ROWS = WIDE ? 8 : 4,  /* of a group of the matrix */
    MOST_POINTS = 6,
    BAND_FLOATS = 1 << 14,     /* of the sums of a band, where two rows allow it */
};

/* The last point of any window is infinity. */
static const float POINTS[MOST_POINTS - 1] = {0, 1, -1, 2, -2};

typedef struct {
    int points;
    int across, rows;         /* lines in a row of positions, rows of positions in a band */
    ptrdiff_t row_pitch;      /* floats from a channel to the next */
    ptrdiff_t point_pitch;
    float *panels[2];         /* [points, channels, row] */
    float *sums;              /* of a band, [rows of the matrix, rows of positions, lines] */
    int64_t bytes;
} winograd_plan;

/* In how many pairs the rows of positions of a sample are computed. */
INLINE int pair_count(const sparsec_step *s) { return s->extra.base >= 0 ? s->extra.height : (s->y.height + 1) / 2; }

static winograd_plan plan_winograd(const sparsec_step *s, void *scratch) {
    winograd_plan p;
    const sparsec_filters *f = s->weights;
    const sparsec_window *w = &s->window;
    p.points = w->height + 1;
    p.across = (s->y.width + LANES - 1) / LANES;
    const int64_t read = p.across * LANES + w->width - 1, written = w->pad_width + round_up(s->x.width, LANES);
    p.row_pitch = round_up(read > written ? read : written, LANES);
    p.point_pitch = f->channels * p.row_pitch;
    int pairs = pair_count(s);
    while (pairs > 1 && (int64_t)f->rows * 2 * pairs * p.across * LANES > BAND_FLOATS) pairs = (pairs + 1) / 2;
    p.rows = 2 * pairs;
    arena from = {scratch, 0};
    for (int i = 0; i < 2; i++) {
        p.panels[i] = take(&from, sizeof(float) * (p.points * p.point_pitch + round_up(w->pad_width, LANES) + LANES));
        /* What is evaluated lies to the right of the padding, and is aligned. */
        if (scratch) p.panels[i] += round_up(w->pad_width, LANES) - w->pad_width;
    }
    /* What is pooled is read in pairs of whole lines. */
    p.sums = take(&from, s->extra.base >= 0 ? sizeof(float) * ((int64_t)f->rows * p.rows * p.across + 4) * LANES : 0);
    p.bytes = from.used;
    return p;
}

int64_t SIZE(winograd)(const sparsec_step *s) { return plan_winograd(s, NULL).bytes; }

/* What is the same in all panels: zeros to the left of what is evaluated, and to its right. */
static void begin_panels(const winograd_plan *p, const sparsec_step *s) {
    const int begin = s->window.pad_width, end = begin + (int)round_up(s->x.width, LANES), between = (int)p->row_pitch - end + begin;
    for (int k = 0; k < 2; k++) {
        float *row = p->panels[k];
        for (int j = 0; j < begin; j++) row[j] = 0.0f;
        /* To the right of a row, and to the left of the next; what is cleared beyond is written later. */
        for (int i = 0; i < p->points * s->x.channels; i++, row += p->row_pitch) clear_row(row + end, between);
    }
}

/* The rows of x at the points; at each of them but the last, a product of the differences to the others, and at the last to all. */
INLINE void evaluate(const int points, const vec *x, float *to, ptrdiff_t pitch) {
    if (points == 4) {
        store(to, x[2] - x[0]);
        store(to + pitch, x[2] + x[1]);
        store(to + 2 * pitch, x[2] - x[1]);
        store(to + 3 * pitch, x[3] - x[1]);
        return;
    }
    const vec even = x[4] - 4.0f * x[2], odd = x[3] - 4.0f * x[1];
    const vec next_even = x[4] - x[2], next_odd = 2.0f * (x[3] - x[1]);
    store(to, x[4] - 5.0f * x[2] + 4.0f * x[0]);
    store(to + pitch, even + odd);
    store(to + 2 * pitch, even - odd);
    store(to + 3 * pitch, next_even + next_odd);
    store(to + 4 * pitch, next_even - next_odd);
    store(to + 5 * pitch, x[5] - 5.0f * x[3] + 4.0f * x[1]);
}

/* The panel of two rows of positions, of which the window of the first begins at row `top` of x; `whole` says that none leaves x. */
INLINE void make_panel_at(
    const int points, const int whole, const winograd_plan *p, const sparsec_step *s, const float *x, int top, float *panel
) {
    const int channels = s->x.channels, height = s->x.height, width = s->x.width;
    const lanes all = lanes_of(0, LANES), rest = lanes_of(0, (width - 1) % LANES + 1);
    const ptrdiff_t pitch = s->x.pitch, row_pitch = p->row_pitch, point_pitch = p->point_pitch;
    x += (ptrdiff_t)top * width;
    panel += s->window.pad_width;
    for (int channel = 0; channel < channels; channel++, x += pitch, panel += row_pitch) {
        for (int j = 0; j < width; j += LANES) {
            const lanes which = j + LANES <= width ? all : rest;
            vec met[MOST_POINTS];
#pragma GCC unroll 6
            for (int i = 0; i < points; i++) {
                const int is_inside = whole || (top + i >= 0 && top + i < height);
                met[i] = is_inside ? load_lanes(x + (ptrdiff_t)i * width + j, which) : (vec){0};
            }
            evaluate(points, met, panel + j, point_pitch);
        }
    }
}

static void make_panel(const winograd_plan *p, const sparsec_step *s, const float *x, int row, float *panel) {
    const int top = row - s->window.pad_height, whole = top >= 0 && top + p->points <= s->x.height;
    if (p->points == 4) {
        if (whole) make_panel_at(4, 1, p, s, x, top, panel);
        else make_panel_at(4, 0, p, s, x, top, panel);
    } else {
        if (whole) make_panel_at(6, 1, p, s, x, top, panel);
        else make_panel_at(6, 0, p, s, x, top, panel);
    }
}

/* Two rows of positions, or the last. */
typedef struct {
    const float *panel;
    ptrdiff_t row_pitch, point_pitch, residual_pitch, y_pitch;
    ptrdiff_t down; /* floats from a row of positions to the next */
    int channels, across, count;
    lanes rest;     /* of the last line */
    float low, high;
} rows_pair;

/* A group of rows of the matrix; bias, residual and y are those of its first row, if there are any. */
typedef struct {
    const float *weights, *bias, *residual;
    float *y;
    int rows;
} matrix_group;

/* The sums of a group of rows of the matrix for one line; the channels of x follow one another at each point. */
INLINE void add_line(
    const int height, const int points, const rows_pair *t, const float *weights, const float *bias, const float *panel, vec sums[2][MOST_ROWS]
) {
#pragma GCC unroll 8
    for (int i = 0; i < height; i++) sums[0][i] = sums[1][i] = splat(bias[i]);
#pragma GCC unroll 6
    for (int k = 0; k < points; k++, panel += t->point_pitch) {
        const float *row = panel;
        vec found[MOST_ROWS];
#pragma GCC unroll 8
        for (int i = 0; i < height; i++) found[i] = (vec){0};
        const float *end = weights + t->channels * (points - 1) * height;
        do {
#pragma GCC unroll 5
            for (int j = 0; j < points - 1; j++, weights += height) {
                const vec met = load(row + j);
#pragma GCC unroll 8
                for (int i = 0; i < height; i++) found[i] += splat(weights[i]) * met;
            }
            row += t->row_pitch;
        } while (weights < end);
#pragma GCC unroll 8
        for (int i = 0; i < height; i++) {
            if (k == points - 1) sums[1][i] += found[i];
            else {
                sums[0][i] += found[i];
                if (POINTS[k] != 0) sums[1][i] += POINTS[k] * found[i];
            }
        }
    }
}

/* A line of sums, [rows, 2, lanes], of which some rows or positions are not wanted, or to which a residual is added. */
static void end_line(const rows_pair *t, const matrix_group *of, const float *sums, int column, lanes which) {
    const vec low = splat(t->low), high = splat(t->high);
    for (int i = 0; i < of->rows; i++) {
        for (int r = 0; r < t->count; r++) {
            const ptrdiff_t place = r * t->down + column;
            vec sum = load(sums + (2 * i + r) * LANES);
            if (of->residual) sum += load_lanes(of->residual + i * t->residual_pitch + place, which);
            store_lanes(of->y + i * t->y_pitch + place, vclamp(sum, low, high), which);
        }
    }
}

/* Some rows of the matrix, which are a group. */
INLINE void add_group(const int height, const int points, const rows_pair *given, const matrix_group *of) {
    const rows_pair t = *given;
    const lanes all = lanes_of(0, LANES);
    const int whole = of->rows == height && t.count == 2 && !of->residual;
    const vec low = splat(whole ? t.low : -__builtin_inff()), high = splat(whole ? t.high : __builtin_inff());
    const ptrdiff_t pitch = whole ? t.y_pitch : 2 * LANES, down = whole ? t.down : LANES;
    float padded[MOST_ROWS] = {0}, kept[MOST_ROWS * 2 * LANES];
    const float *bias = padded;
    if (of->bias && of->rows == height) bias = of->bias;
    else for (int i = 0; of->bias && i < of->rows; i++) padded[i] = of->bias[i];
    for (int j = 0; j < t.across; j++) {
        const lanes which = j < t.across - 1 ? all : t.rest, written = whole ? which : all;
        float *to = whole ? of->y + j * LANES : kept;
        vec sums[2][MOST_ROWS];
        add_line(height, points, &t, of->weights, bias, t.panel + j * LANES, sums);
#pragma GCC unroll 8
        for (int i = 0; i < height; i++) {
            store_lanes(to + i * pitch, vclamp(sums[0][i], low, high), written);
            store_lanes(to + i * pitch + down, vclamp(sums[1][i], low, high), written);
        }
        if (!whole) end_line(&t, of, kept, j * LANES, which);
    }
}

typedef void group_adder(const rows_pair *t, const matrix_group *of);

#define GROUP(height, points) \
    static void add_##height##x##points(const rows_pair *t, const matrix_group *of) { add_group(height, points, t, of); }
#define GROUPS(X) X(2, 4) X(4, 4) X(2, 6) X(4, 6)
#define WIDE_GROUPS(X) X(6, 4) X(8, 4) X(6, 6) X(8, 6)
GROUPS(GROUP)
#if WIDE
WIDE_GROUPS(GROUP)
#endif

static group_adder *adder_of(int height, int points) {
#define PICK(h, p) \
    if (height == h && points == p) return add_##h##x##p;
    GROUPS(PICK)
#if WIDE
    WIDE_GROUPS(PICK)
#endif
#undef PICK
    return NULL;
}

/* All groups of the matrix; y and the residual are those of row 0 and the first position. */
static void add_groups(const rows_pair *t, const sparsec_step *s, float *y, const float *residual) {
    const sparsec_filters *f = s->weights;
    const int points = s->window.height + 1;
    group_adder *const add = adder_of(f->height, points);
    const ptrdiff_t step = (ptrdiff_t)points * f->channels * s->window.width * f->height;
    const float *weights = f->values;
    for (int first = 0; first < f->rows; first += f->height, weights += step) {
        const matrix_group group = {
            weights,
            s->bias ? s->bias + first : NULL,
            residual ? residual + first * t->residual_pitch : NULL,
            y + first * t->y_pitch,
            least(f->height, f->rows - first),
        };
        add(t, &group);
    }
}

/* So many rows of positions of a sample; `at` says which pair of those of all samples they begin with. */
static void run_band(const winograd_plan *p, const sparsec_step *s, float *const *memory, int64_t sample, int row, int rows, int64_t at) {
    const sparsec_filters *f = s->weights;
    const int pooled = s->extra.base >= 0;
    const int64_t begin = (sample * s->y.height + row) * s->y.width;
    const float *x = row_of(&s->x, memory, 0) + (ptrdiff_t)sample * s->x.height * s->x.width;
    const float *residual = s->residual.base >= 0 ? row_of(&s->residual, memory, 0) + begin : NULL;
    const sums_band band = {p->sums, (ptrdiff_t)p->rows * p->across * LANES, p->across * LANES, rows};
    float *y = pooled ? band.sums : row_of(&s->y, memory, 0) + begin;
    rows_pair t = {.channels = f->channels, .across = p->across, .row_pitch = p->row_pitch, .point_pitch = p->point_pitch};
    t.low = s->low, t.high = s->high;
    t.y_pitch = pooled ? band.pitch : s->y.pitch, t.residual_pitch = s->residual.pitch;
    t.down = pooled ? band.down : s->y.width;
    t.rest = lanes_of(0, pooled ? LANES : s->y.width - (p->across - 1) * LANES);
    make_panel(p, s, x, row, p->panels[0]);
    for (int r = 0; r < rows; r += 2, y += 2 * t.down) {
        /* Vectors of a panel that was written just now would be waited for. */
        if (r + 2 < rows) make_panel(p, s, x, row + r + 2, p->panels[(r / 2 + 1) % 2]);
        t.panel = p->panels[r / 2 % 2];
        t.count = least(2, rows - r);
        add_groups(&t, s, y, residual ? residual + r * t.down : NULL);
    }
    if (pooled) end_pooled(s, memory, &band, 0, f->rows, at);
    else if (s->posts) NAME(post_rows)(s, memory, 0, f->rows, begin, (int64_t)rows * s->y.width);
}

void NAME(winograd)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    const winograd_plan p = plan_winograd(s, scratch);
    const int pairs = pair_count(s);
    const int64_t all = (int64_t)s->y.samples * pairs, end = share(all, part + 1, parts);
    begin_panels(&p, s);
    for (int64_t at = share(all, part, parts); at < end;) {
        const int64_t sample = at / pairs;
        const int from = (int)(at % pairs), count = least(p.rows / 2, (int)(end - at < pairs - from ? end - at : pairs - from));
        const int rows = s->extra.base >= 0 ? 2 * count : least(2 * count, s->y.height - 2 * from);
        run_band(&p, s, memory, sample, 2 * from, rows, at);
        at += count;
    }
}
