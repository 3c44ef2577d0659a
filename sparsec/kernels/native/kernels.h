/*
 * Native kernels: sparse matrices with float32 values times dense ones.
 *
 * A kernel is called sparsec_<kernel>_<dtype>_<isa>:
 *
 *   kernel  product    a matrix times many vectors, which are the positions of a convolution with a window of one element
 *           windows    a convolution with any other window
 *           vector     a matrix times one vector
 *           slices     vectors one by one, on slices of rows padded to one length
 *           depthwise  a depthwise convolution, dense
 *   dtype   f32
 *   isa     baseline, avx2, avx512, neon
 *
 * SPARSEC_KERNELS below is the one table of them; sparsec/kernels/library.py mirrors it and the structures. All kernels may
 * run in several threads at once: they write to y and to the scratch memory that the caller gives, and to nothing else.
 * Activations are channels-last, [samples, height, width, channels], without gaps.
 */
#ifndef SPARSEC_KERNELS_H
#define SPARSEC_KERNELS_H

#include <stdint.h>

#define SPARSEC_ABI 1

#if defined(__GNUC__)
#define SPARSEC_API __attribute__((visibility("default")))
#endif

/*
 * A sparse matrix [rows, taps * channels], cut into blocks of consecutive channels. In a block, rows are sorted by how many
 * entries they have there, and rows of equal count form a run; the first block names every row. The entries of one row in one
 * block lie together; the column of an entry is (channel - first channel of the block) * taps + tap.
 */
typedef struct {
    int32_t rows, channels, taps, blocks;
    const int32_t *starts;   /* [blocks + 1]: the first channel of each block */
    const int32_t *counts;   /* [blocks]: the number of runs */
    const int32_t *runs;     /* [runs, 2]: entries of a row, number of rows */
    const int32_t *order;    /* the row of each row in a run */
    const uint16_t *columns; /* of each entry */
    const float *values;     /* of each entry */
} sparsec_matrix;

/*
 * The geometry of a convolution. A tile is what is computed at a time: `tile_rows` rows of `tile_width` positions, which fill
 * at most 8 vectors; sparsec_tile chooses it.
 */
typedef struct {
    int32_t samples, height, width;
    int32_t out_height, out_width;
    int32_t window_height, window_width;
    int32_t stride_height, stride_width;
    int32_t dilation_height, dilation_width;
    int32_t pad_height, pad_width; /* zeros before the first row and column */
    float low, high;               /* the output is clamped to these; not a number stays what it is */
} sparsec_geometry;

/*
 * A sparse matrix in slices of 16 rows and blocks of 32 columns. Every row of a slice has as many entries in a block as the
 * longest, padded with zeros; those of the 16 rows alternate. In a block slices are sorted by length, and form runs.
 */
typedef struct {
    int32_t rows, columns, blocks;
    const int32_t *counts;   /* [blocks]: the number of runs */
    const int32_t *runs;     /* [runs, 2]: entries of a row, number of slices */
    const int32_t *order;    /* the first row of each slice in a run */
    const uint8_t *places;   /* [entries, 16]: column in the block */
    const float *values;     /* [entries, 16] */
} sparsec_slices;

/* X(kernel, arguments) for every kernel; `scratch` is aligned to 64 bytes and as large as the kernel's _bytes function says. */
#define SPARSEC_KERNELS(X) \
    X(product, (const sparsec_matrix *m, const sparsec_geometry *g, const float *x, const float *bias, float *y, void *scratch)) \
    X(windows, (const sparsec_matrix *m, const sparsec_geometry *g, const float *x, const float *bias, float *y, void *scratch)) \
    X(vector, (const sparsec_matrix *m, const sparsec_geometry *g, const float *x, const float *bias, float *y, void *scratch)) \
    X(slices, (const sparsec_slices *m, const sparsec_geometry *g, const float *x, const float *bias, float *y, void *scratch)) \
    X(depthwise, (const float *kernel, const sparsec_geometry *g, const float *x, const float *bias, float *y, int64_t channels))

#endif
