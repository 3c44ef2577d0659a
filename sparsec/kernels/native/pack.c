/*
 * Packing compressed rows into the streams of a sparsec_matrix.
 *
 * The entries of a group of rows are put in order without sorting: an entry has a rank, its channel and then its tap, and a bit for
 * each rank says whether the group has it. Blocks are consecutive channels, so their entries have consecutive ranks.
 */
#include "kernels.h"

#include <stdlib.h>
#include <string.h>

/* A matrix [rows, taps * channels] as compressed rows, whose column is tap * channels + channel, and how it is packed. */
typedef struct {
    int32_t rows, channels, taps, width, height, unused; /* width: channels in a block */
    const int32_t *pointers;                             /* [rows + 1], from any number on */
    const int32_t *indices;                              /* of the entry at pointers[0], and so on */
    const float *values;
} sparsec_packing;

typedef struct {
    int32_t *ranks;  /* [columns] */
    uint64_t *bits;  /* [columns / 64] */
    float *elements; /* [columns, height] */
    int64_t words;
    int32_t blocks;
} workspace;

static int prepare(const sparsec_packing *p, workspace *w) {
    const int64_t columns = (int64_t)p->channels * p->taps;
    w->words = (columns + 63) / 64;
    w->blocks = (p->channels + p->width - 1) / p->width;
    w->ranks = malloc(sizeof(int32_t) * columns);
    w->bits = calloc(w->words, sizeof(uint64_t));
    w->elements = malloc(sizeof(float) * columns * p->height);
    if (!w->ranks || !w->bits || !w->elements) return 0;
    for (int32_t tap = 0, i = 0; tap < p->taps; tap++) {
        for (int32_t channel = 0; channel < p->channels; channel++) w->ranks[i++] = channel * p->taps + tap;
    }
    return 1;
}

static void finish(workspace *w) {
    free(w->ranks);
    free(w->bits);
    free(w->elements);
}

/* Marks the entries of a group; with `keep`, their elements too. */
static void mark(const sparsec_packing *p, workspace *w, int32_t group, int keep) {
    const int32_t first = group * p->height, base = p->pointers[0];
    for (int32_t lane = 0; lane < p->height && first + lane < p->rows; lane++) {
        for (int32_t e = p->pointers[first + lane] - base; e < p->pointers[first + lane + 1] - base; e++) {
            const int32_t rank = w->ranks[p->indices[e]];
            const uint64_t bit = 1ull << (rank % 64);
            float *element = w->elements + (ptrdiff_t)rank * p->height;
            if (keep) {
                if (!(w->bits[rank / 64] & bit)) memset(element, 0, sizeof(float) * p->height);
                element[lane] = p->values[e];
            }
            w->bits[rank / 64] |= bit;
        }
    }
}

/* Counts the entries of each group in each block, lengths[blocks, groups]; false where there is no memory. */
SPARSEC_API int32_t sparsec_pack_count(const sparsec_packing *p, int32_t *lengths) {
    workspace w;
    const int32_t groups = (p->rows + p->height - 1) / p->height, found = prepare(p, &w), span = p->width * p->taps;
    for (int32_t group = 0; found && group < groups; group++) {
        mark(p, &w, group, 0);
        for (int64_t word = 0; word < w.words; word++) {
            for (uint64_t bits = w.bits[word]; bits; bits &= bits - 1) {
                const int32_t rank = (int32_t)(word * 64) + __builtin_ctzll(bits);
                lengths[(int64_t)(rank / span) * groups + group]++;
            }
            w.bits[word] = 0;
        }
    }
    finish(&w);
    return found;
}

/* Writes the columns and values of each group in each block where begins[blocks, groups] says. */
SPARSEC_API int32_t sparsec_pack_fill(const sparsec_packing *p, const int64_t *begins, uint16_t *columns, float *values) {
    workspace w;
    const int32_t groups = (p->rows + p->height - 1) / p->height, found = prepare(p, &w), span = p->width * p->taps;
    for (int32_t group = 0; found && group < groups; group++) {
        mark(p, &w, group, 1);
        int32_t block = -1, start = 0;
        int64_t at = 0;
        for (int64_t word = 0; word < w.words; word++) {
            for (uint64_t bits = w.bits[word]; bits; bits &= bits - 1, at++) {
                const int32_t rank = (int32_t)(word * 64) + __builtin_ctzll(bits);
                if (block < 0 || rank >= start + span) {
                    block = rank / span;
                    start = block * span;
                    at = begins[(int64_t)block * groups + group];
                }
                columns[at] = (uint16_t)(rank - start);
                memcpy(values + at * p->height, w.elements + (ptrdiff_t)rank * p->height, sizeof(float) * p->height);
            }
            w.bits[word] = 0;
        }
    }
    finish(&w);
    return found;
}
