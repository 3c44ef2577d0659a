/*
 * Convolutions with a sparse matrix and any window, in tiles of stacks of lines (stacks.h), each of which meets panels (stacked.h).
 *
 * Panels are as large as the tile with the most rows needs, so that the place of what an element of the window meets in the first
 * line is the same for all sizes of x and y; the column of an entry is that place, in rows of lines:
 *
 *   ((channel - first channel of the block) * width + column) * rows + row % stride * (rows / stride) + row / stride
 *
 * for the element at `column` and `row`, a multiple of the dilation, of a window whose tiles read `rows`, in whole strides.
 */
#include "block.h"
#include "stacked.h"

typedef struct {
    section sections[SECTIONS];
    int tiles; /* of a sample */
    piece *pieces;
    int *counts;
    panel panel;
    line_place *places;
    float *sums;
    int64_t bytes;
} windows_plan;

static windows_plan plan_windows(const sparsec_step *s, void *scratch) {
    windows_plan p = {0};
    const sparsec_matrix *pieces = s->weights;
    const sparsec_window *w = &s->window;
    const int lines = most_lines(pieces);
    int across = 1, parts = 1, widest = 0, rows = 0;
    cut_sections(s, lines, p.sections);
    for (int i = 0; i < SECTIONS; i++) {
        const section *c = p.sections + i;
        p.tiles += c->stacks * c->tiles;
        across = most(across, c->across);
        parts = most(parts, c->pieces);
    }
    for (int i = 0; i < s->pieces; i++) {
        widest = most(widest, widest_block(pieces + i));
        rows = most(rows, pieces[i].rows);
    }
    panel *of = &p.panel;
    of->rows = (int)round_up(rows_read(w, lines), w->stride_height);
    arena from = {scratch, 0};
    p.pieces = take(&from, sizeof(piece) * parts);
    p.counts = take(&from, sizeof(int) * across);
    of->from = take(&from, sizeof(int) * parts);
    of->bits = take(&from, sizeof(uint16_t) * parts * vectors_of(w->stride_width) * w->width * of->rows);
    of->picked = take(&from, PICKS ? sizeof(picks) * across * w->width : 0);
    of->floats = take(&from, sizeof(vec) * widest * w->width * of->rows * across);
    p.places = take(&from, sizeof(line_place) * LANES * lines);
    p.sums = take(&from, sizeof(vec) * rows * lines);
    p.bytes = from.used;
    return p;
}

int64_t SIZE(windows)(const sparsec_step *s) { return plan_windows(s, NULL).bytes; }

static stack_tile tile_of(const windows_plan *p, int index) {
    const section *c = p->sections;
    for (; index >= c->stacks * c->tiles; c++) index -= c->stacks * c->tiles;
    stack_tile t = cut_tile(c, index);
    t.pieces = p->pieces, t.counts = p->counts;
    if (t.rows) find_pieces(&t);
    return t;
}

/* Where the pieces of the lines of a tile go in a row of y: [parts, lines]. */
static void find_places(const sparsec_step *s, const stack_tile *t, line_place *places) {
    const piece *pieces = t->pieces;
    for (int line = 0; line < t->across; pieces += t->counts[line++]) {
        for (int i = 0; i < t->parts; i++) {
            for (int row = 0, n = line; n < t->lines; row++, n += t->across) {
                const int inside = i < t->counts[line] && row < pieces[i].rows, lane = inside ? pieces[i].lane : 0;
                line_place *to = places + i * t->lines + n;
                to->place = inside ? (pieces[i].row + row) * s->y.width + pieces[i].column - lane : 0;
                to->which = lanes_of(lane, inside ? lane + pieces[i].count : 0);
            }
        }
    }
}

static void finish_piece(
    const sparsec_step *s, float *const *memory, const piece *at, int64_t first_row, int rows, int64_t begin
) {
    const int joined = at->count == s->y.width, times = joined ? 1 : at->rows, count = joined ? at->rows * at->count : at->count;
    for (int r = 0; r < times; r++) {
        NAME(post_rows)(s, memory, first_row, rows, begin + (int64_t)(at->row + r) * s->y.width + at->column, count);
    }
}

static void run_tile(
    const windows_plan *plan, const sparsec_step *s, float *const *memory, const sparsec_matrix *m, int64_t first_row, int64_t index,
    int is_first
) {
    const int64_t sample = index / plan->tiles, position = sample * s->y.height * s->y.width;
    const float *x = row_of(&s->x, memory, 0) + sample * s->x.height * s->x.width;
    const stack_tile tile = tile_of(plan, (int)(index % plan->tiles));
    if (!tile.rows) return;
    panel p = plan->panel;
    prepare_panel(&p, s, &tile);
    find_places(s, &tile, plan->places);
    target t = {.panel = (const char *)p.floats, .sums = plan->sums, .rows = m->rows};
    t.stride = (ptrdiff_t)sizeof(vec) * tile.across;
    t.pitch = (ptrdiff_t)tile.lines * LANES;
    t.out = row_of(&s->y, memory, first_row) + position, t.out_pitch = s->y.pitch;
    t.places = plan->places, t.parts = tile.parts;
    t.is_large = s->y.channels * s->y.pitch * (int64_t)sizeof(float) > LARGE;
    t.bias = s->bias ? s->bias + first_row : NULL;
    t.residual = s->residual.base >= 0 ? row_of(&s->residual, memory, first_row) + position : NULL;
    t.residual_pitch = s->residual.pitch;
    t.low = s->low, t.high = s->high;
    t.fetches = fetches(m, is_first);
    cursor at = begin(m);
    for (int b = 0; b < m->blocks; b++) {
        make_panel(&p, s, &tile, x, m->starts[b], m->starts[b + 1]);
        t.first = b == 0;
        t.last = b == m->blocks - 1;
        at = add_block(m, tile.lines, tile.halved ? HALF : WHOLE, at, b, &t);
    }
    if (!s->posts) return;
    const piece *pieces = tile.pieces;
    for (int line = 0; line < tile.across; pieces += tile.counts[line++]) {
        for (int i = 0; i < tile.counts[line]; i++) finish_piece(s, memory, pieces + i, first_row, m->rows, position);
    }
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
