/*
 * Convolutions with a sparse matrix and any window.
 *
 * Positions are computed in stacks: the lines of a stack lie one row of positions below the other. Where a line is not filled by
 * one row, it has the ends of several, whose rows lie as far apart as the stack is high. So what one element of the window meets
 * is as many lines below what another does as there are rows between them, whatever the width of the output.
 *
 * A tile is some lines of a stack. For a tile and a block of channels a panel is copied from x, [channels, column of the window,
 * input row by phase]: every element of the window finds its lines there one below the other and aligned, with zeros where the
 * window leaves the input. Panels are as large as the tile with the most lines needs, so that the place of what an element
 * meets in the first line is the same for all sizes of x and y; the column of an entry is that place, in lines:
 *
 *   ((channel - first channel of the block) * width + column) * rows + row % stride * (rows / stride) + row / stride
 *
 * for the element at `column` and `row`, a multiple of the dilation, of a window whose tiles read `rows`, in whole strides.
 */
#include "block.h"
#include "rows.h"

/* Lanes of a line that lie side by side in a row of positions, and so in all lines of a tile, and what they meet of a channel. */
typedef struct {
    int lane, count;
    int column;       /* of positions, that of the first lane */
    int row, rows;    /* of positions, that of the first line; how many lines have one */
    int first, stop;  /* the rows that the tile reads which lie in x */
    ptrdiff_t from;   /* floats from the channel to what lane 0 would meet in the first row that the tile reads */
    const uint16_t *bits; /* [columns of the window, stride where that is 1 or 2] of the lanes that are read */
} strip;

typedef struct {
    int whole;                 /* stacks that a single row fills */
    int width, height, stacks; /* of what lies beside them: columns, lines of a stack, and how many stacks */
    int most;                  /* lines of a tile */
    int tiles;                 /* of a sample */
    int rows;                  /* of a panel, in whole phases: what a tile with the most lines reads */
    strip *strips;
    uint16_t *bits;
    line_place *places;
    float *panel, *sums;
    int64_t bytes;
} windows_plan;

static int tiles_of(const windows_plan *p, int height) { return (height + p->most - 1) / p->most; }

static windows_plan plan_windows(const sparsec_step *s, void *scratch) {
    windows_plan p;
    const sparsec_matrix *pieces = s->weights;
    const sparsec_window *w = &s->window;
    const int strips = most(s->options[0], 1), parts = least(strips, LANES);
    p.most = most_lines(pieces);
    p.whole = s->y.width / LANES;
    p.width = s->y.width % LANES;
    p.height = (s->y.height + strips - 1) / strips;
    p.stacks = (strips * p.width + LANES - 1) / LANES;
    p.tiles = p.whole * tiles_of(&p, s->y.height) + p.stacks * tiles_of(&p, p.height);
    p.rows = (int)round_up(rows_read(w, p.most), w->stride_height);
    int widest = 0, most_rows = 0;
    for (int i = 0; i < s->pieces; i++) {
        widest = most(widest, widest_block(pieces + i));
        most_rows = most(most_rows, pieces[i].rows);
    }
    arena from = {scratch, 0};
    p.strips = take(&from, sizeof(strip) * parts);
    p.bits = take(&from, sizeof(uint16_t) * parts * w->width * 2);
    p.places = take(&from, sizeof(line_place) * parts * p.most);
    p.panel = take(&from, sizeof(vec) * widest * w->width * p.rows);
    p.sums = take(&from, sizeof(vec) * most_rows * p.most);
    p.bytes = from.used;
    return p;
}

int64_t SIZE(windows)(const sparsec_step *s) { return plan_windows(s, NULL).bytes; }

/* Some lines of a stack. */
typedef struct {
    int stack, first, lines;
    int parts; /* strips of a line */
} window_tile;

/* Tiles beside one another follow in turn, since they read some of the same lines of the cache. */
static window_tile tile_of(const windows_plan *p, const sparsec_step *s, int tile) {
    const int before = p->whole * tiles_of(p, s->y.height), beside = tile >= before;
    const int height = beside ? p->height : s->y.height, stacks = beside ? p->stacks : p->whole, count = tiles_of(p, height);
    const int index = beside ? tile - before : tile, down = index / stacks;
    const int first = height * down / count;
    return (window_tile){index % stacks + beside * p->whole, first, height * (down + 1) / count - first, 0};
}

/* What a strip meets of a channel of x. */
static void find_reading(const sparsec_step *s, strip *at, uint16_t *bits) {
    const sparsec_window *w = &s->window;
    const int stride = w->stride_width, width = s->x.width;
    const int top = at->row * w->stride_height - w->pad_height, left = at->column * stride - w->pad_width;
    at->from = (ptrdiff_t)top * width + left - (ptrdiff_t)at->lane * stride;
    at->first = most(-top, 0);
    at->stop = least(s->x.height - top, rows_read(w, at->rows));
    at->bits = bits;
    for (int j = 0; stride <= 2 && j < w->width; j++) {
        const int from = left + j * w->dilation_width, first = from < 0 ? (stride - 1 - from) / stride : 0;
        const int stop = most(first, least(at->count, (width - from + stride - 1) / stride));
        for (int half = 0; half < stride; half++) {
            *bits++ = bits_of(stride, stride * (at->lane + first) - half * LANES, stride * (at->lane + stop) - half * LANES);
        }
    }
}

/* Finds the strips of a tile, and returns how many there are in a line. */
static int find_strips(const windows_plan *p, const sparsec_step *s, const window_tile *t) {
    if (t->stack < p->whole) {
        *p->strips = (strip){.count = LANES, .column = t->stack * LANES, .row = t->first, .rows = t->lines};
        find_reading(s, p->strips, p->bits);
        return 1;
    }
    int parts = 0, place = (t->stack - p->whole) * LANES;
    for (int lane = 0, count; lane < LANES; lane += count, place += count) {
        const int column = place % p->width, row = place / p->width * p->height + t->first;
        if (row >= s->y.height) break;
        count = least(p->width - column, LANES - lane);
        strip *at = p->strips + parts;
        *at = (strip){.lane = lane, .count = count, .column = p->whole * LANES + column, .row = row};
        at->rows = least(t->lines, s->y.height - row);
        find_reading(s, at, p->bits + (ptrdiff_t)parts++ * s->window.width * 2);
    }
    return parts;
}

/* What the lanes of a strip meet in a row, at any stride. */
static vec read_any(const sparsec_step *s, const strip *at, const float *from, int right) {
    const int stride = s->window.stride_width, left = at->column * stride - s->window.pad_width + right;
    vec value = {0};
    for (int i = 0; i < at->count; i++) {
        const int lane = at->lane + i, column = left + i * stride;
        if (column >= 0 && column < s->x.width) value[lane] = from[(ptrdiff_t)lane * stride];
    }
    return value;
}

INLINE vec read_strip(const int known, const sparsec_step *s, const strip *at, const float *from, int j) {
    return known ? read_line(known, from, at->bits + j * known) : read_any(s, at, from, j * s->window.dilation_width);
}

/* Every `down`-th row that a tile with one strip reads, from `row` on. */
INLINE void copy_rows(
    const int known, const sparsec_step *s, const strip *at, const float *from, int j, int row, int read, int down, float *to
) {
    const ptrdiff_t step = (ptrdiff_t)down * s->x.width;
    from += row * (ptrdiff_t)s->x.width;
    for (; row < read && row < at->first; row += down, from += step, to += LANES) store(to, (vec){0});
    for (; row < at->stop; row += down, from += step, to += LANES) store(to, read_strip(known, s, at, from, j));
    for (; row < read; row += down, to += LANES) store(to, (vec){0});
}

/* The same with more strips. */
INLINE void join_rows(
    const int known, const sparsec_step *s, const strip *strips, int parts, const float *from, int j, int row, int read, int down, float *to
) {
    from += row * (ptrdiff_t)s->x.width;
    for (; row < read; row += down, from += (ptrdiff_t)down * s->x.width, to += LANES) {
        vec line = {0};
        for (int i = 0; i < parts; i++) {
            const strip *at = strips + i;
            if (row < at->first || row >= at->stop) continue;
            line = (vec)((ivec)line | (ivec)read_strip(known, s, at, from + at->from, j));
        }
        store(to, line);
    }
}

/* What the tile to the right will read of a channel: rows lie so far apart that the processor by itself does not fetch it. */
INLINE void fetch_beside(const sparsec_step *s, const strip *at, const float *channel) {
    const float *from = channel + at->from + 2 * LANES * s->window.stride_width;
    for (int row = at->first; row < at->stop; row++) __builtin_prefetch(from + (ptrdiff_t)row * s->x.width, 0, 2);
}

/* The panel of channels first <= c < stop for a tile. */
INLINE void copy_panel(
    const int known, const int single, const windows_plan *plan, const sparsec_step *given, const window_tile *t, const float *x,
    int first, int stop
) {
    /* Copies on the stack let the compiler see that stores to the panel do not change them. */
    const windows_plan p = *plan;
    const sparsec_step s = *given;
    strip strips[LANES];
    for (int i = 0; i < t->parts; i++) strips[i] = p.strips[i];
    const int parts = t->parts, down = s.window.stride_height, phase_rows = p.rows / down, read = rows_read(&s.window, t->lines);
    float *to = p.panel;
    for (int channel = first; channel < stop; channel++) {
        const float *from = x + channel * s.x.pitch;
        if (single) fetch_beside(&s, strips, from);
        for (int j = 0; j < s.window.width; j++, from += s.window.dilation_width) {
            for (int phase = 0; phase < down; phase++, to += phase_rows * LANES) {
                if (single) copy_rows(known, &s, strips, from + strips->from, j, phase, read, down, to);
                else join_rows(known, &s, strips, parts, from, j, phase, read, down, to);
            }
        }
    }
}

static void make_panel(
    const windows_plan *p, const sparsec_step *s, const window_tile *t, const float *x, int first, int stop
) {
    switch (2 * least(s->window.stride_width, 3) + (t->parts == 1)) {
        case 2: copy_panel(1, 0, p, s, t, x, first, stop); break;
        case 3: copy_panel(1, 1, p, s, t, x, first, stop); break;
        case 4: copy_panel(2, 0, p, s, t, x, first, stop); break;
        case 5: copy_panel(2, 1, p, s, t, x, first, stop); break;
        default: copy_panel(0, 0, p, s, t, x, first, stop);
    }
}

/* Where the strips of the lines of a tile go in a row of y: [parts, lines]. */
static void find_places(const windows_plan *p, const sparsec_step *s, const window_tile *t) {
    line_place *to = p->places;
    for (int i = 0; i < t->parts; i++) {
        const strip *at = p->strips + i;
        for (int r = 0; r < t->lines; r++, to++) {
            const int inside = r < at->rows;
            to->place = inside ? (at->row + r) * s->y.width + at->column - at->lane : 0;
            to->which = inside ? lanes_of(at->lane, at->lane + at->count) : lanes_of(0, 0);
        }
    }
}

static void finish_tile(
    const windows_plan *p, const sparsec_step *s, float *const *memory, const window_tile *t, int64_t first_row, int rows, int64_t begin
) {
    for (int i = 0; i < t->parts; i++) {
        const strip *at = p->strips + i;
        const int joined = at->count == s->y.width, lines = joined ? 1 : at->rows, count = joined ? at->rows * at->count : at->count;
        for (int r = 0; r < lines; r++) {
            NAME(post_rows)(s, memory, first_row, rows, begin + (int64_t)(at->row + r) * s->y.width + at->column, count);
        }
    }
}

static void run_tile(
    const windows_plan *p, const sparsec_step *s, float *const *memory, const sparsec_matrix *m, int64_t first_row, int64_t index,
    int is_first
) {
    const int64_t sample = index / p->tiles, position = sample * s->y.height * s->y.width;
    const float *x = row_of(&s->x, memory, 0) + sample * s->x.height * s->x.width;
    window_tile tile = tile_of(p, s, (int)(index % p->tiles));
    tile.parts = find_strips(p, s, &tile);
    find_places(p, s, &tile);
    target t = {.panel = (const char *)p->panel, .stride = sizeof(vec), .sums = p->sums, .rows = m->rows};
    t.pitch = (ptrdiff_t)tile.lines * LANES;
    t.out = row_of(&s->y, memory, first_row) + position, t.out_pitch = s->y.pitch;
    t.places = p->places, t.parts = tile.parts;
    t.is_large = s->y.channels * s->y.pitch * (int64_t)sizeof(float) > LARGE;
    t.bias = s->bias ? s->bias + first_row : NULL;
    t.residual = s->residual.base >= 0 ? row_of(&s->residual, memory, first_row) + position : NULL;
    t.residual_pitch = s->residual.pitch;
    t.low = s->low, t.high = s->high;
    t.fetches = fetches(m, is_first);
    cursor at = begin(m);
    for (int b = 0; b < m->blocks; b++) {
        make_panel(p, s, &tile, x, m->starts[b], m->starts[b + 1]);
        t.first = b == 0;
        t.last = b == m->blocks - 1;
        at = add_block(m, tile.lines, 0, at, b, &t);
    }
    if (s->posts) finish_tile(p, s, memory, &tile, first_row, m->rows, position);
}

void NAME(windows)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    const windows_plan p = plan_windows(s, scratch);
    const sparsec_matrix *pieces = s->weights;
    const portion work = portion_of(s, (int64_t)s->y.samples * p.tiles, part, parts);
    int64_t row = 0;
    for (int i = 0; i < work.pieces; i++) {
        for (int64_t tile = work.tile; i >= work.piece && tile < work.tiles; tile++) {
            run_tile(&p, s, memory, pieces + i, row, tile, tile == work.tile);
        }
        row += pieces[i].rows;
    }
}
