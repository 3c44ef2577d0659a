/* Packing compressed rows into the streams of a sparsec_slices. */
#include "kernels.h"

enum {
    GROUP = 4,       /* entries of a row in a group */
    HOP = 8,         /* columns */
    FARTHEST = 255,  /* hops from a window to the next */
    MOST_ROWS = 16,  /* in a slice */
};

/* Compressed rows, of which order[rows] says how they follow one another, and how they are cut into slices. */
typedef struct {
    int32_t rows, height, width, depth;
    const int32_t *order;
    const int32_t *pointers; /* [rows + 1], from 0 on */
    const int32_t *indices;
    const float *values;
} sparsec_slicing;

/* The rows of a slice: the next entry of each, and the one behind its last. */
typedef struct {
    int32_t rows;
    int32_t next[MOST_ROWS], end[MOST_ROWS];
} slice;

static slice begin(const sparsec_slicing *p, int32_t first) {
    slice s = {.rows = p->rows - first < p->height ? p->rows - first : p->height};
    for (int32_t lane = 0; lane < s.rows; lane++) {
        const int32_t row = p->order[first + lane];
        s.next[lane] = p->pointers[row];
        s.end[lane] = p->pointers[row + 1];
    }
    return s;
}

/* The column of the first entry that is left; negative where there is none. */
static int32_t first_column(const sparsec_slicing *p, const slice *s) {
    int32_t found = -1;
    for (int32_t lane = 0; lane < s->rows; lane++) {
        if (s->next[lane] == s->end[lane]) continue;
        const int32_t column = p->indices[s->next[lane]];
        if (found < 0 || column < found) found = column;
    }
    return found;
}

/* The hops from a window that begins at `start` to one with that column; none where it is negative, and all are behind. */
static int32_t hops_to(int32_t start, int32_t column) {
    const int32_t hops = column < 0 ? 0 : (column - start) / HOP;
    return hops < FARTHEST ? hops : FARTHEST;
}

/* Counts the groups of each slice, lengths[slices], and writes the streams, whose memory is zero before, if there is any. */
SPARSEC_API void sparsec_pack_slices(
    const sparsec_slicing *p, int32_t *lengths, uint8_t *hops, uint8_t *places, float *values
) {
    int64_t group = 0;
    for (int32_t first = 0; first < p->rows; first += p->height) {
        slice s = begin(p, first);
        const int64_t before = group;
        int32_t start = 0, column;
        while ((column = first_column(p, &s)) >= 0) {
            for (int32_t t = 0; t < GROUP; t++) {
                if (t % p->depth == 0) {
                    const int32_t hop = hops_to(start, t ? first_column(p, &s) : column);
                    start += HOP * hop;
                    if (values) hops[(group * GROUP + t) / p->depth] = (uint8_t)hop;
                }
                for (int32_t lane = 0; lane < s.rows; lane++) {
                    const int32_t entry = s.next[lane];
                    if (entry == s.end[lane] || p->indices[entry] >= start + p->width) continue;
                    s.next[lane]++;
                    if (!values) continue;
                    places[(group * p->height + lane) * GROUP + t] = (uint8_t)(p->indices[entry] - start);
                    values[(group * GROUP + t) * p->height + lane] = p->values[entry];
                }
            }
            group++;
        }
        lengths[first / p->height] = (int32_t)(group - before);
    }
}
