/*
 * Convolutions with a sparse matrix and any window.
 *
 * A tile is some rows of positions of one sample, each padded to whole vectors, or two and more rows in a vector where they
 * are short. For a tile and a block of channels a panel is copied from x, [channels, column of the window, input row by phase,
 * tile_width]: what one element of the window meets in neighbouring positions lies together there, with zeros where the window
 * leaves the input, and every element of the window finds its vectors aligned.
 */
#include "block.h"
#include "rows.h"

typedef struct {
    int tile_rows, tile_width, lines; /* a tile */
    int down, across;                 /* how many tiles there are in a sample */
    int panel_rows;                   /* input rows that a tile reads */
    int per_line;                     /* rows of positions in a line, where they are short; else 0 */
    ptrdiff_t channel_pitch;
    float *panel, *sums;
    int32_t *offsets;
    line_place *places;
    int64_t bytes;
} windows_plan;

static windows_plan plan_windows(const sparsec_step *s, void *scratch) {
    windows_plan p;
    const sparsec_matrix *pieces = s->weights;
    const sparsec_window *w = &s->window;
    const int room = most_lines(pieces) * LANES, height = s->y.height, width = s->y.width;
    if (2 * width <= LANES) {
        p.across = 1;
        p.tile_width = (int)round_up(width, 4);
        while (LANES % p.tile_width) p.tile_width += 4;
        p.per_line = LANES / p.tile_width;
    } else {
        p.across = most((width + room - 1) / room, least(s->options[0], (width + LANES - 1) / LANES));
        p.tile_width = (int)round_up((width + p.across - 1) / p.across, LANES);
        p.per_line = 0;
    }
    p.down = (height + room / p.tile_width - 1) / (room / p.tile_width);
    p.tile_rows = (height + p.down - 1) / p.down;
    p.lines = (int)round_up(p.tile_rows * p.tile_width, LANES) / LANES;
    const int rows = p.lines * LANES / p.tile_width;
    p.panel_rows = rows_read(w, rows);
    p.channel_pitch = round_up((ptrdiff_t)w->width * p.panel_rows * p.tile_width, LINE);
    int widest = 0, most_rows = 0;
    for (int i = 0; i < s->pieces; i++) {
        widest = most(widest, widest_block(pieces + i));
        most_rows = most(most_rows, pieces[i].rows);
    }
    arena from = {scratch, 0};
    p.offsets = take(&from, sizeof(int32_t) * widest * pieces->taps);
    p.places = take(&from, sizeof(line_place) * p.lines);
    p.panel = take(&from, sizeof(float) * (widest * p.channel_pitch + LINE));
    p.sums = take(&from, sizeof(float) * most_rows * p.lines * LANES);
    p.bytes = from.used;
    return p;
}

int64_t SIZE(windows)(const sparsec_step *s) { return plan_windows(s, NULL).bytes; }

/* The place in a panel of the input row that is `row` rows below the first that the tile reads: rows of one phase lie together. */
static int panel_row(const windows_plan *p, const sparsec_window *w, int row) {
    if (w->stride_height == 1) return row;
    int place = row / w->stride_height;
    for (int phase = 0; phase < row % w->stride_height; phase++) {
        place += (p->panel_rows - phase + w->stride_height - 1) / w->stride_height;
    }
    return place;
}

static void find_offsets(const windows_plan *p, const sparsec_step *s, int channels) {
    const sparsec_window *w = &s->window;
    int32_t *offset = p->offsets;
    for (int channel = 0; channel < channels; channel++) {
        for (int i = 0; i < w->height; i++) {
            const ptrdiff_t place = channel * p->channel_pitch + (ptrdiff_t)panel_row(p, w, i * w->dilation_height) * p->tile_width;
            for (int j = 0; j < w->width; j++) {
                *offset++ = (int32_t)((place + (ptrdiff_t)j * p->panel_rows * p->tile_width) * (ptrdiff_t)sizeof(float));
            }
        }
    }
}

/* The panel of channels first <= c < stop for the tile that begins at `row` and `column`; what is written beyond a row is overwritten. */
INLINE void copy_panel(
    const int stride, const windows_plan *p, const sparsec_step *s, const float *x, int first, int stop, int row, int column
) {
    const sparsec_window *w = &s->window;
    const int top = row * w->stride_height - w->pad_height, width = s->x.width;
    for (int channel = first; channel < stop; channel++) {
        const float *plane = x + channel * s->x.pitch;
        float *to = p->panel + (channel - first) * p->channel_pitch;
        for (int shift = 0; shift < w->width; shift++) {
            const int left = column * w->stride_width + shift * w->dilation_width - w->pad_width;
            for (int phase = 0; phase < w->stride_height; phase++) {
                for (int r = phase; r < p->panel_rows; r += w->stride_height, to += p->tile_width) {
                    const int at = top + r;
                    if (at < 0 || at >= s->x.height) clear_row(to, p->tile_width);
                    else copy_row(stride, w->stride_width, to, plane + (ptrdiff_t)at * width, left, width, p->tile_width);
                }
            }
        }
    }
}

static void make_panel(
    const windows_plan *p, const sparsec_step *s, const float *x, int first, int stop, int row, int column
) {
    switch (s->window.stride_width) {
        case 1: copy_panel(1, p, s, x, first, stop, row, column); break;
        case 2: copy_panel(2, p, s, x, first, stop, row, column); break;
        default: copy_panel(0, p, s, x, first, stop, row, column);
    }
}

/* Where the lines of a tile go in a row of y. */
static void find_places(const windows_plan *p, const sparsec_step *s, int row, int column) {
    line_place *to = p->places;
    for (int j = 0, down = 0; j < p->lines; down++) {
        const int inside = down < p->tile_rows && row + down < s->y.height;
        for (int right = column; right < column + p->tile_width && j < p->lines; right += LANES, j++, to++) {
            to->place = inside ? (row + down) * s->y.width + right : 0;
            to->which = lanes_of(0, inside ? s->y.width - right : 0);
        }
    }
}

/* Copies the sums of short rows of positions to y, with the residual and the clamp. */
static void copy_short(
    const windows_plan *p, const sparsec_step *s, const float *residual, float *y, int rows, int row, int count
) {
    const vec low = splat(s->low), high = splat(s->high);
    const lanes which = lanes_of(0, s->y.width);
    for (int i = 0; i < rows; i++) {
        const float *from = p->sums + (ptrdiff_t)i * p->lines * LANES;
        for (int r = 0; r < count; r++, from += p->tile_width) {
            const ptrdiff_t place = (ptrdiff_t)(row + r) * s->y.width;
            vec value = load_lanes(from, which);
            if (residual) value += load_lanes(residual + i * s->residual.pitch + place, which);
            store_lanes(y + i * s->y.pitch + place, vclamp(value, low, high), which);
        }
    }
}

static void finish_tile(
    const sparsec_step *s, float *const *memory, int64_t first_row, int rows, int64_t begin, int row, int count, int column, int width
) {
    const int whole = column == 0 && width >= s->y.width;
    for (int i = 0; i < rows; i++) {
        if (whole) {
            NAME(post)(s, memory, first_row + i, begin + (int64_t)row * s->y.width, (int64_t)count * s->y.width);
            continue;
        }
        for (int r = 0; r < count; r++) {
            const int64_t at = begin + (int64_t)(row + r) * s->y.width + column;
            NAME(post)(s, memory, first_row + i, at, least(width, s->y.width - column));
        }
    }
}

static void run_tile(
    const windows_plan *p, const sparsec_step *s, float *const *memory, const sparsec_matrix *m, int64_t first_row, int64_t tile,
    int is_first
) {
    const int in_sample = (int)(tile % (p->down * p->across));
    const int64_t sample = tile / (p->down * p->across);
    const int row = in_sample / p->across * p->tile_rows, column = in_sample % p->across * p->tile_width;
    const int count = least(p->tile_rows, s->y.height - row);
    const int64_t begin_y = sample * s->y.height * s->y.width;
    const float *x = row_of(&s->x, memory, 0) + sample * s->x.height * s->x.width;
    float *y = row_of(&s->y, memory, first_row) + begin_y;
    const float *residual = s->residual.base >= 0 ? row_of(&s->residual, memory, first_row) + begin_y : NULL;
    const ptrdiff_t pitch = (ptrdiff_t)p->lines * LANES;
    target t = {.panel = (const char *)p->panel, .offsets = p->offsets, .sums = p->sums, .pitch = pitch, .rows = m->rows};
    t.bias = s->bias ? s->bias + first_row : NULL;
    t.fetches = fetches(m, is_first);
    if (p->per_line) {
        t.out = p->sums, t.out_pitch = pitch;
        t.low = -__builtin_inff(), t.high = __builtin_inff();
    } else {
        find_places(p, s, row, column);
        t.out = y, t.out_pitch = s->y.pitch, t.places = p->places;
        t.residual = residual, t.residual_pitch = s->residual.pitch;
        t.low = s->low, t.high = s->high;
    }
    cursor at = begin(m);
    for (int b = 0; b < m->blocks; b++) {
        make_panel(p, s, x, m->starts[b], m->starts[b + 1], row, column);
        t.first = b == 0;
        t.last = b == m->blocks - 1;
        at = add_block(m, p->lines, 0, at, b, &t);
    }
    if (p->per_line) copy_short(p, s, residual, y, m->rows, row, count);
    if (s->posts) finish_tile(s, memory, first_row, m->rows, begin_y, row, count, column, p->tile_width);
}

void NAME(windows)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    const windows_plan p = plan_windows(s, scratch);
    const sparsec_matrix *pieces = s->weights;
    const portion work = portion_of(s, (int64_t)s->y.samples * p.down * p.across, part, parts);
    int64_t row = 0;
    for (int i = 0; i < work.pieces; i++) {
        if (i >= work.piece) {
            find_offsets(&p, s, widest_block(pieces + i));
            for (int64_t tile = work.tile; tile < work.tiles; tile++) {
                run_tile(&p, s, memory, pieces + i, row, tile, tile == work.tile);
            }
        }
        row += pieces[i].rows;
    }
}
