/*
 * What a tile of windows.c and a block of channels meet: a panel [channels, column of the window, input row by phase, line of the
 * row], copied from x with zeros where the window leaves it. Every element of the window finds its lines there one below the other
 * and aligned.
 */
#ifndef SPARSEC_STACKED_H
#define SPARSEC_STACKED_H

#include "stacks.h"

/*
 * The vectors from which one can pick what all columns of the window meet are those of the pieces, with what the window reads
 * beside them. Lines with more pieces have each column read by itself.
 */
enum { SOURCES = 4 };

/* What a line meets at a column of the window, as lanes of these vectors. */
typedef struct {
    ivec first, second; /* for each lane the place in those of the first two pieces, and of the other two */
    ivec others;        /* all ones in lanes of those */
} picks;

typedef struct {
    int rows;       /* in whole phases: what a tile with the most rows reads */
    int *from;      /* by piece: floats from a channel to what lane 0 would meet in the first row that the tile reads */
    uint16_t *bits; /* [line of a row, column of the window, row that the tile reads, piece, vector]: which lanes lie in x */
    picks *picked;  /* [line of a row, column of the window] */
    int picks;      /* whether columns are picked, and bits are not by column */
    float *floats;
} panel;

/* The vectors in which the lanes of a piece are, where the stride is known. */
INLINE int vectors_of(int stride) { return stride == 2 ? 2 : 1; }

INLINE int reach_of(const sparsec_window *w) { return (w->width - 1) * w->dilation_width; }

/* The rows that a tile reads which lie in x for a piece: first <= row < stop. */
INLINE int first_inside(const sparsec_step *s, const piece *at) {
    return most(s->window.pad_height - at->row * s->window.stride_height, 0);
}

INLINE int stop_inside(const sparsec_step *s, const piece *at) {
    const int top = at->row * s->window.stride_height - s->window.pad_height;
    return least(s->x.height - top, rows_read(&s->window, at->rows));
}

/* Which lanes of a piece read x at a column of the window: where the stride is 1 or 2, of the vectors they are read from. */
INLINE void find_lanes(const sparsec_step *s, const piece *at, int j, uint16_t *bits) {
    const sparsec_window *w = &s->window;
    const int stride = w->stride_width, known = stride <= 2 ? stride : 1;
    const int left = at->column * stride - w->pad_width + j * w->dilation_width;
    const int first = left < 0 ? (stride - 1 - left) / stride : 0;
    const int stop = most(first, least(at->count, (s->x.width - left + stride - 1) / stride));
    for (int k = 0; k < vectors_of(stride); k++) {
        bits[k] = bits_of(known, known * (at->lane + first) - k * LANES, known * (at->lane + stop) - k * LANES);
    }
}

/* Which elements of a row, from the first that the first column of the window meets on, are read from x. */
INLINE uint16_t find_elements(const sparsec_step *s, const piece *at) {
    const int left = at->column - s->window.pad_width;
    return bits_of(1, -left, least(s->x.width - left, at->count + reach_of(&s->window)));
}

/* The bits of a piece in all rows that a tile reads, which are so many apart: none in those outside of x. */
INLINE void spread_bits(const sparsec_step *s, const piece *at, const uint16_t *bits, int vectors, int read, int apart, uint16_t *to) {
    const int first = first_inside(s, at), stop = stop_inside(s, at);
    for (int row = 0; row < read; row++, to += apart) {
        for (int k = 0; k < vectors; k++) to[k] = row >= first && row < stop ? bits[k] : 0;
    }
}

INLINE int can_pick(const sparsec_step *s, const stack_tile *t) {
    if (!PICKS || s->window.stride_width != 1 || t->parts > SOURCES) return 0;
    const piece *at = t->pieces;
    for (int line = 0; line < t->across; line++) {
        for (int i = 0; i < t->counts[line]; i++, at++) {
            if (at->count + reach_of(&s->window) > LANES) return 0;
        }
    }
    return 1;
}

/* What a line meets at a column of the window. */
INLINE picks find_picks(const sparsec_step *s, const piece *pieces, int count, int j) {
    picks found = {0};
    for (int i = 0; i < count; i++) {
        for (int n = 0; n < pieces[i].count; n++) {
            const int lane = pieces[i].lane + n, place = i % 2 * LANES + n + j * s->window.dilation_width;
            if (i < 2) found.first[lane] = place;
            else found.second[lane] = place, found.others[lane] = -1;
        }
    }
    return found;
}

/* Finds out what the copies of a tile have in common. */
INLINE void prepare_panel(panel *p, const sparsec_step *s, const stack_tile *t) {
    const sparsec_window *w = &s->window;
    const int vectors = vectors_of(w->stride_width), read = rows_read(w, t->rows);
    p->picks = can_pick(s, t);
    uint16_t *bits = p->bits;
    picks *picked = p->picked;
    int *from = p->from;
    const piece *pieces = t->pieces;
    for (int line = 0; line < t->across; pieces += t->counts[line++]) {
        const int count = t->counts[line];
        for (int i = 0; i < count; i++) {
            const int left = (pieces[i].column - (p->picks ? 0 : pieces[i].lane)) * w->stride_width - w->pad_width;
            *from++ = (pieces[i].row * w->stride_height - w->pad_height) * s->x.width + left;
        }
        for (int j = 0; j < (p->picks ? 1 : w->width); j++, bits += read * count * vectors) {
            for (int i = 0; i < count; i++) {
                uint16_t found[2];
                if (p->picks) *found = find_elements(s, pieces + i);
                else find_lanes(s, pieces + i, j, found);
                spread_bits(s, pieces + i, found, vectors, read, count * vectors, bits + i * vectors);
            }
        }
        for (int j = 0; p->picks && j < w->width; j++) *picked++ = find_picks(s, pieces, count, j);
    }
}

/* What copies of one line of the rows of a tile have in common. */
typedef struct {
    const sparsec_window *window;
    const int *from;
    int width;          /* of x */
    int read, rows;     /* rows that the tile reads, and of a panel */
    ptrdiff_t pitch;    /* floats from a row of the panel to the next */
} line_copy;

/* What the lanes of a piece meet in a row, where `known` is the stride if that is 1 or 2, else 0. */
INLINE vec read_piece(const int known, int stride, const float *from, const uint16_t *bits) {
    if (known) return read_line(known, from, bits);
    vec value = {0};
    for (int lane = 0; lane < LANES; lane++) {
        if (*bits >> lane & 1) value[lane] = from[(ptrdiff_t)lane * stride];
    }
    return value;
}

/* What a line of so many pieces meets at one column of the window. */
INLINE void copy_line(const int known, const int count, line_copy c, const float *x, const uint16_t *bits, float *to) {
    const int vectors = vectors_of(known), down = c.window->stride_height, stride = c.window->stride_width;
    for (int phase = 0; phase < down; phase++, to += c.rows / down * c.pitch) {
        float *into = to;
        for (int row = phase; row < c.read; row += down, into += c.pitch) {
            const float *of_row = x + row * (ptrdiff_t)c.width;
            const uint16_t *of_pieces = bits + (ptrdiff_t)row * count * vectors;
            ivec line = {0};
#pragma GCC unroll 2
            for (int i = 0; i < count; i++) line |= (ivec)read_piece(known, stride, of_row + c.from[i], of_pieces + i * vectors);
            store(into, (vec)line);
        }
    }
}

/* What it meets at all of them, of which there are `width`. */
INLINE void pick_line(
    const int count, const int width, line_copy c, const float *x, const uint16_t *bits, const picks *picked, float *to
) {
    const int down = c.window->stride_height;
    /* Stores to the panel cannot change what is on the stack. */
    picks known[3];
    for (int j = 0; j < 3 && width == 3; j++) known[j] = picked[j];
    if (width == 3) picked = known;
    for (int phase = 0; phase < down; phase++, to += c.rows / down * c.pitch) {
        float *into = to;
        for (int row = phase; row < c.read; row += down, into += c.pitch) {
            const float *of_row = x + row * (ptrdiff_t)c.width;
            vec source[SOURCES] = {0};
#pragma GCC unroll 4
            for (int i = 0; i < count; i++) source[i] = load_bits(of_row + c.from[i], bits[row * count + i]);
#pragma GCC unroll 3
            for (int j = 0; j < width; j++) {
                vec line = pick_lanes(source[0], source[1], picked[j].first);
                if (count > 2) line = choose(picked[j].others, pick_lanes(source[2], source[3], picked[j].second), line);
                store(into + j * c.rows * c.pitch, line);
            }
        }
    }
}

/* All columns of the window, and returns the bits of the next line. */
INLINE const uint16_t *copy_columns(const int known, int count, line_copy c, const float *x, const uint16_t *bits, float *to) {
    for (int j = 0; j < c.window->width; j++, bits += c.read * count * vectors_of(known)) {
        const float *from = x + j * c.window->dilation_width;
        float *into = to + j * c.rows * c.pitch;
        if (count == 2) copy_line(known, 2, c, from, bits, into);
        else copy_line(known, count, c, from, bits, into);
    }
    return bits;
}

INLINE const uint16_t *pick_columns(
    int count, line_copy c, const float *x, const uint16_t *bits, const picks *picked, float *to
) {
    switch (c.window->width == 3 ? count : 0) {
        case 1: pick_line(1, 3, c, x, bits, picked, to); break;
        case 2: pick_line(2, 3, c, x, bits, picked, to); break;
        case 3: pick_line(3, 3, c, x, bits, picked, to); break;
        default: pick_line(count, c.window->width, c, x, bits, picked, to);
    }
    return bits + c.read * count;
}

/* What the tile to the right will read of a channel: rows lie so far apart that the processor by itself does not fetch it. */
INLINE void fetch_beside(const line_copy *c, const float *channel) {
    const float *from = channel + *c->from + 2 * LANES * c->window->stride_width;
    for (int row = 0; row < c->read; row++) __builtin_prefetch(from + (ptrdiff_t)row * c->width, 0, 2);
}

/*
 * The panel of channels first <= c < stop, where `known` is the stride if that is 1 or 2, else 0: for a tile with one line in a row,
 * of a single piece.
 */
INLINE void copy_single(
    const int known, const panel *p, const sparsec_step *s, const stack_tile *t, const float *x, int first, int stop
) {
    const sparsec_window window = s->window;
    const line_copy c = {&window, p->from, s->x.width, rows_read(&window, t->rows), p->rows, LANES};
    const int inside = first_inside(s, t->pieces), end = stop_inside(s, t->pieces), down = window.stride_height;
    const int vectors = vectors_of(known), from = *p->from, phase_rows = c.rows / down, read = c.read;
    const ptrdiff_t step = (ptrdiff_t)down * c.width, pitch = s->x.pitch;
    const uint16_t *bits = p->bits + (inside < read ? inside : 0) * vectors;
    float *to = p->floats;
    x += first * pitch;
    for (int channel = first; channel < stop; channel++, x += pitch) {
        if (t->of->width >= LANES) fetch_beside(&c, x);
        for (int j = 0; j < window.width; j++) {
            const uint16_t which[2] = {bits[j * read * vectors], bits[j * read * vectors + vectors - 1]};
            for (int phase = 0; phase < down; phase++, to += phase_rows * LANES) {
                const float *of_row = x + from + j * window.dilation_width + phase * (ptrdiff_t)c.width;
                float *into = to;
                int row = phase;
                for (; row < read && row < inside; row += down, of_row += step, into += LANES) store(into, (vec){0});
                for (; row < end; row += down, of_row += step, into += LANES) {
                    store(into, read_piece(known, window.stride_width, of_row, which));
                }
                for (; row < read; row += down, into += LANES) store(into, (vec){0});
            }
        }
    }
}

/* The same for any other tile. */
INLINE void copy_panel(
    const int known, const int picks_columns, const panel *p, const sparsec_step *s, const stack_tile *t, const float *x, int first,
    int stop
) {
    const sparsec_window window = s->window;
    line_copy c = {&window, p->from, s->x.width, rows_read(&window, t->rows), p->rows, (ptrdiff_t)t->across * LANES};
    const ptrdiff_t size = window.width * c.rows * c.pitch;
    float *to = p->floats;
    for (int channel = first; channel < stop; channel++, to += size) {
        const float *from = x + channel * s->x.pitch;
        const uint16_t *bits = p->bits;
        const picks *picked = p->picked;
        c.from = p->from;
        for (int line = 0; line < t->across; line++, picked += window.width) {
            const int count = t->counts[line];
            if (picks_columns) bits = pick_columns(count, c, from, bits, picked, to + line * LANES);
            else bits = copy_columns(known, count, c, from, bits, to + line * LANES);
            c.from += count;
        }
    }
}

INLINE void make_panel(const panel *p, const sparsec_step *s, const stack_tile *t, const float *x, int first, int stop) {
    const int known = s->window.stride_width <= 2 ? s->window.stride_width : 0, single = t->across == 1 && t->parts == 1;
    if (p->picks) copy_panel(1, 1, p, s, t, x, first, stop);
    else if (single && known == 1) copy_single(1, p, s, t, x, first, stop);
    else if (single && known == 2) copy_single(2, p, s, t, x, first, stop);
    else if (single) copy_single(0, p, s, t, x, first, stop);
    else if (known == 1) copy_panel(1, 0, p, s, t, x, first, stop);
    else if (known == 2) copy_panel(2, 0, p, s, t, x, first, stop);
    else copy_panel(0, 0, p, s, t, x, first, stop);
}

#endif
