/*
 * How windows.c cuts the positions of its output.
 *
 * Positions are computed in stacks: the lines of a stack lie one row of positions below the other. Where a line is not filled by
 * one row, it has the ends of several, which are as many rows apart in all lines. So what one element of the window meets is as
 * many lines below what another does as there are rows between them, whatever the width of the output.
 *
 * To this end the columns of positions fall into sections. What whole lines cover of each row is one of them, and what lies beside
 * is one or two, whose columns are cut into strips, one below the other. Strips differ by a row at most, the longer ones come
 * first, and column by column and strip by strip they take the lanes of as many lines as they need. A stack has some of these
 * lines side by side, and its last line may be filled by half. A tile is some rows of a stack.
 */
#ifndef SPARSEC_STACKS_H
#define SPARSEC_STACKS_H

#include "rows.h"

/* Some columns of positions. */
typedef struct {
    int column, width;  /* the first column, and how many */
    int strips;         /* into which they are cut, one below the other */
    int height, longer; /* rows of the longest strips, and how many have as many: the others have one row less */
    int lines;          /* that the lanes of all strips take, side by side */
    int across;         /* of them in a stack */
    int stacks, tiles;  /* how many stacks there are, and tiles of each */
    int pieces;         /* the most that the lines of a row of a stack have */
} section;

enum { SECTIONS = 3 };

/* Lanes of a line that lie side by side in a row of positions, and so in all rows of a tile. */
typedef struct {
    int lane, count;
    int column;    /* of positions, that of the first lane */
    int row, rows; /* of positions, that of the first row of the tile; how many of its rows have one */
} piece;

/* Some rows of a stack. */
typedef struct {
    const section *of;
    int line, across; /* the first line of the section that the stack has, and how many lie side by side */
    int row, rows;
    int lines;        /* in all rows: the last row may have fewer */
    int halved;       /* whether of the last line only the first half is filled */
    piece *pieces;    /* of the lines of a row in turn */
    int *counts;      /* how many each line has */
    int parts;        /* the most that a line has */
} stack_tile;

INLINE section cut_section(int column, int width, int rows, int strips, int across, int most_lines) {
    section c = {.column = column, .width = width, .strips = most(strips, 1)};
    c.height = (rows + c.strips - 1) / c.strips;
    c.longer = rows - c.strips * (c.height - 1);
    c.lines = (c.strips * width + LANES - 1) / LANES;
    c.across = most(least(least(across, most_lines), c.lines), 1);
    c.stacks = (c.lines + c.across - 1) / c.across;
    c.tiles = (c.height + most_lines / c.across - 1) / (most_lines / c.across);
    c.pieces = width ? c.across * least(LANES, (LANES - 2) / width + 2) : 0;
    return c;
}

/* The sections of a step whose tiles have at most so many lines. */
INLINE void cut_sections(const sparsec_step *s, int most_lines, section *to) {
    const int *o = s->options, rows = s->y.height, whole = s->y.width / LANES * LANES, columns = least(o[0], s->y.width - whole);
    to[0] = cut_section(0, whole, rows, 1, 1, most_lines);
    to[1] = cut_section(whole, columns, rows, o[1], o[2], most_lines);
    to[2] = cut_section(whole + columns, s->y.width - whole - columns, rows, o[3], o[4], most_lines);
}

/* The lanes of a row of a stack that positions take. */
INLINE int lanes_in_row(const section *c, const stack_tile *t, int row) {
    const int strips = row < c->height - 1 ? c->strips : c->longer;
    return most(least(strips * c->width - t->line * LANES, t->across * LANES), 0);
}

/* A tile of a section; it may have no rows. Those beside one another follow in turn: they read some of the same cache lines. */
INLINE stack_tile cut_tile(const section *c, int index) {
    stack_tile t = {.of = c, .line = index % c->stacks * c->across};
    const int down = index / c->stacks;
    t.across = least(c->across, c->lines - t.line);
    const int rows = c->height - !lanes_in_row(c, &t, c->height - 1);
    t.row = rows * down / c->tiles;
    t.rows = rows * (down + 1) / c->tiles - t.row;
    const int lanes = lanes_in_row(c, &t, t.row + t.rows - 1), rest = lanes % LANES;
    t.lines = (t.rows - 1) * t.across + (lanes + LANES - 1) / LANES;
    t.halved = HALVES && rest > 0 && rest <= LANES / 2;
    return t;
}

/* Finds the pieces of the lines of a row of a tile. */
INLINE void find_pieces(stack_tile *t) {
    const section *c = t->of;
    piece *at = t->pieces;
    t->parts = 0;
    for (int line = 0; line < t->across; line++) {
        int found = 0, place = (t->line + line) * LANES;
        for (int lane = 0, count; lane < LANES && place < c->strips * c->width; lane += count, place += count, found++, at++) {
            const int i = place / c->width, column = place % c->width, length = c->height - (i >= c->longer);
            if (length <= t->row) break;
            count = least(c->width - column, LANES - lane);
            const int row = i * (c->height - 1) + least(i, c->longer) + t->row;
            *at = (piece){lane, count, c->column + column, row, least(t->rows, length - t->row)};
        }
        t->counts[line] = found;
        t->parts = most(t->parts, found);
    }
}

#endif
