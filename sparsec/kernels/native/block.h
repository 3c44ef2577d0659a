/*
 * One block of a sparse matrix times a panel, which is what product.c and windows.c have in common.
 *
 * The sums of a group of rows are as many vectors as the tile has lines, held in registers while the entries of the group are
 * added: an entry costs a broadcast of its value and, for each line, a multiplication with a vector of the panel. Groups of
 * four rows share that vector. Where the last line of theirs has but one position, that costs one operation for all four, on a
 * vector of rows. Blocks after the first take up the sums of the block before them, from where they were stored.
 */
#ifndef SPARSEC_BLOCK_H
#define SPARSEC_BLOCK_H

#include "vector.h"

/* The most lines that a tile has, for groups of one row and of four. */
#if SPARSEC_BYTES == 64
enum { LINES_1 = 8, LINES_4 = 6 };
#else
enum { LINES_1 = 8, LINES_4 = 3 };
#endif

enum {
    WAYS = 4,        /* the most sums of a row that are added up at its end */
    AHEAD = 256,     /* entries by which a matrix is fetched ahead */
    TOGETHER = WIDE ? 4 : 1, /* entries of groups of four rows whose instructions are mixed: else there are too few registers */
    FAR = 1 << 19,   /* the bytes of a matrix that is not kept in the second-level cache from one tile to the next */
    LARGE = 1 << 21, /* the bytes of an output whose lines are fetched before they are written */
};

/* Where a kernel is in the streams of a matrix. */
typedef struct {
    const int32_t *runs, *order;
    const uint16_t *columns;
    const float *values;
} cursor;

INLINE cursor begin(const sparsec_matrix *m) { return (cursor){m->runs, m->order, m->columns, m->values}; }

/* What a block is multiplied with, and where its sums are. */
typedef struct {
    const char *panel;
    ptrdiff_t stride;         /* bytes from a column to the next, where offsets is null */
    const int32_t *offsets;   /* bytes of each column */
    float *sums;              /* the sums of row 0 */
    ptrdiff_t pitch;          /* floats from the sums of a row to the next */
    int rows, first, last;    /* of the matrix; whether it is the first block, and the last */
    int fetches;              /* whether the matrix is fetched ahead */
    const float *bias;        /* of row 0; null where there is none */
    const float *residual;    /* of row 0, at the tile; null where there is none */
    ptrdiff_t residual_pitch;
    float low, high;
    float *out;               /* row 0, where lines go to other places when all is added; null where they stay */
    ptrdiff_t out_pitch;
    const line_place *places; /* [parts, lines] in a row of out and of residual; null where lines are as in sums */
    int parts;                /* that a line has, which go to different places */
    int is_large;             /* whether out is */
} target;

INLINE const vec *meets(const target *t, uint16_t column) {
    return (const vec *)(t->panel + (t->offsets ? t->offsets[column] : (ptrdiff_t)column * t->stride));
}

/*
 * A matrix comes from far away for the first tile, and for all where it is large. Its entries take so long to be added that the
 * processor by itself does not fetch early enough.
 */
INLINE int fetches(const sparsec_matrix *m, int is_first) {
    return is_first || (int64_t)m->entries * (int)(sizeof(uint16_t) + m->height * sizeof(float)) > FAR;
}

INLINE void fetch_ahead(cursor at, int count) {
    for (int e = 0; e < count; e += LINE) __builtin_prefetch(at.values + e + AHEAD);
    for (int e = 0; e < count; e += 2 * LINE) __builtin_prefetch(at.columns + e + AHEAD);
}

/* What of its last line a tile needs: all of it, the first half, or the first position. */
enum { WHOLE, HALF, ONE };

/* The sums of a row: so many whole lines, and half a line where there are halves. */
typedef struct {
    vec line[LINES_1];
    half tail;
} row_sums;

INLINE void begin_row(const int lines, const int halves, const target *t, int row, row_sums *sums) {
    if (t->is_large && t->last) {
        for (int j = 0; j < lines; j++) __builtin_prefetch(t->out + row * t->out_pitch + t->places[j].place, 1);
    }
    if (!t->first) {
        const float *from = t->sums + row * t->pitch;
#pragma GCC unroll 8
        for (int j = 0; j < lines; j++) sums->line[j] = load(from + j * LANES);
        if (halves) sums->tail = *(const half *)(from + lines * LANES);
        return;
    }
    const vec bias = splat(t->bias ? t->bias[row] : 0.0f);
#pragma GCC unroll 8
    for (int j = 0; j < lines; j++) sums->line[j] = bias;
    if (halves) sums->tail = first_half(bias);
    if (!t->residual) return;
    const float *from = t->residual + row * t->residual_pitch;
    if (!t->places) {
#pragma GCC unroll 8
        for (int j = 0; j < lines; j++) sums->line[j] += load(from + j * LANES);
        if (halves) sums->tail += *(const half *)(from + lines * LANES);
    } else {
        for (int part = 0; part < t->parts; part++) {
            const line_place *at = t->places + part * (lines + halves);
            for (int j = 0; j < lines; j++) sums->line[j] += load_lanes(from + at[j].place, at[j].which);
            if (halves) sums->tail += first_half(load_lanes(from + at[lines].place, at[lines].which));
        }
    }
}

INLINE void end_row(const int lines, const int halves, const target *t, int row, const row_sums *sums) {
    if (!t->last) {
        float *to = t->sums + row * t->pitch;
#pragma GCC unroll 8
        for (int j = 0; j < lines; j++) store(to + j * LANES, sums->line[j]);
        if (halves) *(half *)(to + lines * LANES) = sums->tail;
        return;
    }
    const vec low = splat(t->low), high = splat(t->high);
    float *to = t->out + row * t->out_pitch;
    if (!t->places) {
#pragma GCC unroll 8
        for (int j = 0; j < lines; j++) store(to + j * LANES, vclamp(sums->line[j], low, high));
        if (halves) *(half *)(to + lines * LANES) = clamp_half(sums->tail, first_half(low), first_half(high));
    } else {
        for (int part = 0; part < t->parts; part++) {
            const line_place *at = t->places + part * (lines + halves);
#pragma GCC unroll 8
            for (int j = 0; j < lines; j++) store_lanes(to + at[j].place, vclamp(sums->line[j], low, high), at[j].which);
            if (halves) store_lanes(to + at[lines].place, vclamp(with_half(sums->tail), low, high), at[lines].which);
        }
    }
}

INLINE void add_entry(const int lines, const int halves, vec value, const vec *x, row_sums *sums) {
#pragma GCC unroll 8
    for (int j = 0; j < lines; j++) sums->line[j] += value * x[j];
    if (halves) sums->tail += first_half(value) * *(const half *)(x + lines);
}

/*
 * Groups of one row. Where there are few lines, entries go to `ways` sums, since each waits for the one before in its sum. What
 * limits is how many loads a processor does in a cycle, so that values and columns are loaded four at a time.
 */
INLINE cursor add_rows(const int lines, const int halves, const int ways, cursor at, int runs, const target *t) {
    for (; runs > 0; runs--, at.runs += 2) {
        const int count = at.runs[0];
        for (int n = at.runs[1]; n > 0; n--, at.columns += count, at.values += count) {
            const int row = *at.order++;
            row_sums sums[WAYS];
            if (t->fetches) fetch_ahead(at, count);
            begin_row(lines, halves, t, row, sums);
#pragma GCC unroll 4
            for (int way = 1; way < ways; way++) sums[way] = (row_sums){0};
            int e = 0;
            for (; e + 4 <= count; e += 4) {
                const vec values = load_fours(at.values + e);
                uint64_t columns;
                memcpy(&columns, at.columns + e, sizeof(columns));
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) {
                    add_entry(lines, halves, pick(values, i), meets(t, (uint16_t)(columns >> 16 * i)), sums + i % ways);
                }
            }
            for (; e < count; e++) add_entry(lines, halves, splat(at.values[e]), meets(t, at.columns[e]), sums);
#pragma GCC unroll 4
            for (int way = 1; way < ways; way++) {
#pragma GCC unroll 8
                for (int j = 0; j < lines; j++) sums->line[j] += sums[way].line[j];
                if (halves) sums->tail += sums[way].tail;
            }
            end_row(lines, halves, t, row, sums);
        }
    }
    return at;
}

/* The sums of the block before, which may have left the nearest cache since. */
INLINE void fetch_sums(const int lines, const target *t, int row) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < lines * LANES; j += LINE) __builtin_prefetch(t->sums + (row + i) * t->pitch + j);
    }
}

/* The sums of a group of four rows: whole lines and halves of each, and a last position of all. */
typedef struct {
    row_sums row[4];
    quad one;
} group_sums;

/* The sum that a single position of a row begins with. */
INLINE float begin_one(const target *t, int row, int place) {
    if (!t->first) return t->sums[row * t->pitch + place];
    return (t->bias ? t->bias[row] : 0.0f) + (t->residual ? t->residual[row * t->residual_pitch + place] : 0.0f);
}

INLINE void begin_group(const int lines, const int tail, const target *t, int row, int height, group_sums *sums) {
    const int rows[4] = {row, row + least(1, height - 1), row + least(2, height - 1), row + least(3, height - 1)};
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) begin_row(lines, tail == HALF, t, rows[i], sums->row + i);
    if (tail != ONE) return;
#define BEGIN(i) begin_one(t, rows[i], lines * LANES)
    sums->one = (quad){BEGIN(0), BEGIN(1), BEGIN(2), BEGIN(3)};
#undef BEGIN
}

INLINE void end_group(const int lines, const int tail, const target *t, int row, int height, const group_sums *sums) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        if (i >= height) return;
        end_row(lines, tail == HALF, t, row + i, sums->row + i);
        if (tail != ONE) continue;
        if (t->last) t->out[(row + i) * t->out_pitch + lines * LANES] = clamp(sums->one[i], t->low, t->high);
        else t->sums[(row + i) * t->pitch + lines * LANES] = sums->one[i];
    }
}

/* What an entry of a group of four rows adds. */
INLINE void add_shared(const int lines, const int tail, const float *values, const vec *x, group_sums *sums) {
    vec from[LINES_4];
    half rest = {0};
#pragma GCC unroll 8
    for (int j = 0; j < lines; j++) from[j] = x[j];
    if (tail == HALF) rest = *(const half *)(x + lines);
    if (tail == ONE) sums->one += *(const quad *)values * *(const float *)(x + lines);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const vec value = splat(values[i]);
#pragma GCC unroll 8
        for (int j = 0; j < lines; j++) sums->row[i].line[j] += value * from[j];
        if (tail == HALF) sums->row[i].tail += first_half(value) * rest;
    }
}

/*
 * Groups of four rows; those after the last row of the matrix are neither read nor written. Values are fetched ahead while
 * entries are added: all at once there would be more of them than a processor can wait for.
 */
INLINE cursor add_groups(const int lines, const int tail, cursor at, int runs, const target *t) {
    for (; runs > 0; runs--, at.runs += 2) {
        const int count = at.runs[0];
        for (int n = at.runs[1]; n > 0; n--, at.columns += count, at.values += 4 * count) {
            const int row = *at.order++, height = least(4, t->rows - row);
            group_sums sums;
            if (!t->first && (n > 1 || runs > 1)) fetch_sums(lines + (tail != WHOLE), t, *at.order);
            begin_group(lines, tail, t, row, height, &sums);
            int e = 0;
            for (; e + 4 <= count; e += 4) {
                if (t->fetches) __builtin_prefetch(at.values + 4 * (e + AHEAD));
#pragma GCC unroll TOGETHER
                for (int i = e; i < e + 4; i++) add_shared(lines, tail, at.values + 4 * i, meets(t, at.columns[i]), &sums);
            }
#pragma GCC unroll TOGETHER
            for (; e < count; e++) add_shared(lines, tail, at.values + 4 * e, meets(t, at.columns[e]), &sums);
            for (e = 0; t->fetches && e < count; e += 2 * LINE) __builtin_prefetch(at.columns + e + 2 * AHEAD);
            end_group(lines, tail, t, row, height, &sums);
        }
    }
    return at;
}

typedef cursor (*adder)(cursor, int, const target *);

/* A copy of the target on the stack lets the compiler see that stores to the sums do not change it. */
#define ADDER(name, call) \
    static cursor name(cursor at, int runs, const target *given) { \
        const target t = *given; \
        return t.offsets ? call : call; \
    }
ADDER(add_1, add_rows(1, 0, 4, at, runs, &t))
ADDER(add_2, add_rows(2, 0, 2, at, runs, &t))
ADDER(add_3, add_rows(3, 0, 2, at, runs, &t))
ADDER(add_4, add_rows(4, 0, 1, at, runs, &t))
ADDER(add_5, add_rows(5, 0, 1, at, runs, &t))
ADDER(add_6, add_rows(6, 0, 1, at, runs, &t))
ADDER(add_7, add_rows(7, 0, 1, at, runs, &t))
ADDER(add_8, add_rows(8, 0, 1, at, runs, &t))
ADDER(add_4x1, add_groups(1, WHOLE, at, runs, &t))
ADDER(add_4x2, add_groups(2, WHOLE, at, runs, &t))
ADDER(add_4x3, add_groups(3, WHOLE, at, runs, &t))
ADDER(add_4x_one, add_groups(0, ONE, at, runs, &t))
ADDER(add_4x1_one, add_groups(1, ONE, at, runs, &t))
ADDER(add_4x2_one, add_groups(2, ONE, at, runs, &t))
#if SPARSEC_BYTES == 64
ADDER(add_half, add_rows(0, 1, 4, at, runs, &t))
ADDER(add_1_half, add_rows(1, 1, 2, at, runs, &t))
ADDER(add_2_half, add_rows(2, 1, 2, at, runs, &t))
ADDER(add_3_half, add_rows(3, 1, 1, at, runs, &t))
ADDER(add_4_half, add_rows(4, 1, 1, at, runs, &t))
ADDER(add_5_half, add_rows(5, 1, 1, at, runs, &t))
ADDER(add_6_half, add_rows(6, 1, 1, at, runs, &t))
ADDER(add_7_half, add_rows(7, 1, 1, at, runs, &t))
ADDER(add_4x4, add_groups(4, WHOLE, at, runs, &t))
ADDER(add_4x5, add_groups(5, WHOLE, at, runs, &t))
ADDER(add_4x6, add_groups(6, WHOLE, at, runs, &t))
ADDER(add_4x_half, add_groups(0, HALF, at, runs, &t))
ADDER(add_4x1_half, add_groups(1, HALF, at, runs, &t))
ADDER(add_4x2_half, add_groups(2, HALF, at, runs, &t))
ADDER(add_4x3_half, add_groups(3, HALF, at, runs, &t))
ADDER(add_4x4_half, add_groups(4, HALF, at, runs, &t))
ADDER(add_4x5_half, add_groups(5, HALF, at, runs, &t))
ADDER(add_4x3_one, add_groups(3, ONE, at, runs, &t))
ADDER(add_4x4_one, add_groups(4, ONE, at, runs, &t))
ADDER(add_4x5_one, add_groups(5, ONE, at, runs, &t))
#endif

INLINE int most_lines(const sparsec_matrix *m) { return m->height == 4 ? LINES_4 : LINES_1; }

/* How much of its last line a tile needs that has so many positions there. */
INLINE int tail_of(const sparsec_matrix *m, int64_t left) {
    if (m->height == 4 && left == 1) return ONE;
    return HALVES && left <= LANES / 2 ? HALF : WHOLE;
}

/* Adds one block of a matrix for a tile of so many lines. */
INLINE cursor add_block(const sparsec_matrix *m, int lines, int tail, cursor at, int block, const target *t) {
    static const adder ROWS[] = {0, add_1, add_2, add_3, add_4, add_5, add_6, add_7, add_8};
#if SPARSEC_BYTES == 64
    static const adder GROUPS[] = {0, add_4x1, add_4x2, add_4x3, add_4x4, add_4x5, add_4x6};
    static const adder ONE_GROUPS[] = {0, add_4x_one, add_4x1_one, add_4x2_one, add_4x3_one, add_4x4_one, add_4x5_one};
    static const adder HALVED_ROWS[] = {
        0, add_half, add_1_half, add_2_half, add_3_half, add_4_half, add_5_half, add_6_half, add_7_half,
    };
    static const adder HALVED_GROUPS[] = {
        0, add_4x_half, add_4x1_half, add_4x2_half, add_4x3_half, add_4x4_half, add_4x5_half,
    };
    if (tail == HALF) return (m->height == 4 ? HALVED_GROUPS : HALVED_ROWS)[lines](at, m->counts[block], t);
#else
    static const adder GROUPS[] = {0, add_4x1, add_4x2, add_4x3};
    static const adder ONE_GROUPS[] = {0, add_4x_one, add_4x1_one, add_4x2_one};
#endif
    if (tail == ONE) return ONE_GROUPS[lines](at, m->counts[block], t);
    return (m->height == 4 ? GROUPS : ROWS)[lines](at, m->counts[block], t);
}

INLINE int widest_block(const sparsec_matrix *m) {
    int widest = 0;
    for (int b = 0; b < m->blocks; b++) widest = most(widest, m->starts[b + 1] - m->starts[b]);
    return widest;
}

/* How a step divides its work: by pieces of the matrix where there are several, else by tiles. */
typedef struct {
    int piece, pieces;
    int64_t tile, tiles;
} portion;

INLINE portion portion_of(const sparsec_step *s, int64_t tiles, int part, int parts) {
    if (s->pieces > 1) {
        return (portion){(int)share(s->pieces, part, parts), (int)share(s->pieces, part + 1, parts), 0, tiles};
    }
    return (portion){0, 1, share(tiles, part, parts), share(tiles, part + 1, parts)};
}

#endif
