/*
 * The native engine: plans made of steps, and the kernels that run them. float32 throughout.
 *
 * A value holds activations channel by channel: a row is one channel, its positions are those of all samples in turn, [samples,
 * height, width], and `pitch` floats lie between two rows. Rows of more than one position begin at a multiple of 64 bytes and
 * are padded to one, so that whole vectors may be read and written there; what stands in the padding means nothing. A value
 * with one position has a pitch of 1: it is a plain vector.
 *
 * Whole numbers and truth values are float32 too: 1 is true and 0 is false, and of numbers nothing is asked but what rounding
 * leaves as it is.
 *
 * A kernel computes one step, sparsec_<kernel>_f32_<isa>:
 *
 *   kernel  as in SPARSEC_KERNELS
 *   dtype   f32
 *   isa     baseline, avx2, avx512, neon
 *
 * sparsec/kernels/library.py mirrors the structures and the tables here. Steps write to their output and to the scratch memory
 * they are given, and to nothing else, so a plan may run in several threads at once, each with its own arena.
 */
#ifndef SPARSEC_KERNELS_H
#define SPARSEC_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#define SPARSEC_ABI 17

#if defined(__GNUC__)
#define SPARSEC_API __attribute__((visibility("default")))
#endif

/* Where a value lies: in memory `base` of the call, of which the first is the arena; no value where that is negative. */
typedef struct {
    int32_t base, channels;
    int32_t samples, height, width;
    int32_t unused;
    int64_t offset; /* floats from the beginning of the memory */
    int64_t pitch;  /* floats from a row to the next; 0 where one row serves for all channels */
} sparsec_value;

/* How a window goes over the input; `pad` zeros lie before the first row and column. */
typedef struct {
    int32_t height, width;
    int32_t stride_height, stride_width;
    int32_t dilation_height, dilation_width;
    int32_t pad_height, pad_width;
} sparsec_window;

/*
 * A sparse matrix [rows, taps * channels], cut into blocks of consecutive channels. `height` rows share their columns, and are
 * a group. In a block, groups are sorted by how many entries they have there, and groups of equal count form a run; the first
 * and the last block name every group. The entries of one group in one block lie together; the column of an entry is
 * (channel - first channel of the block) * taps + tap; what it is for windows, windows.c says. Rows after the last are zero.
 */
typedef struct {
    int32_t rows, channels, taps, blocks;
    int32_t height, entries; /* entries of a group count once */
    const int32_t *starts;   /* [blocks + 1]: the first channel of each block */
    const int32_t *counts;   /* [blocks]: the number of runs */
    const int32_t *runs;     /* [runs, 2]: entries of a group, number of groups */
    const int32_t *order;    /* the first row of each group in a run */
    const uint16_t *columns; /* of each entry */
    const float *values;     /* [entries, height] */
} sparsec_matrix;

/*
 * A dense matrix [rows, taps * channels], cut into groups of `height` rows, which is 2, 4, 6 or 8. The columns of a group follow
 * one another; rows after the last are zero.
 */
typedef struct {
    int32_t rows, channels, taps, height;
    const float *values; /* [groups, taps * channels, height] */
} sparsec_filters;

/*
 * A sparse matrix in slices of `height` rows: rows are sorted by how many entries they have, the most first, and so many in turn
 * are a slice; the last may have fewer. A slice goes over the columns in windows of `width`. Each begins so many times 8 columns
 * after the one before as `hops` says, the first after column 0, and has `depth` entries of every row, filled up with zeros;
 * windows with four entries of every row are a group. They may reach behind the last column. There are kernels for these:
 *
 *   height  width    depth
 *   4       256      4      with every instruction set
 *   8       16, 32   1      with avx2
 *   16      64, 128  4      with avx512
 */
typedef struct {
    int32_t rows, columns, groups;
    int32_t height, width, depth;
    const int32_t *lengths; /* [slices]: the number of groups */
    const int32_t *order;   /* [rows] */
    const uint8_t *hops;    /* [groups, 4 / depth] */
    const uint8_t *places;  /* [groups, height, 4]: column in the window */
    const float *values;    /* [groups, 4, height] */
} sparsec_slices;

/*
 * Which elements of the input are copied where: element (i, j, ..) goes from the sum of i, j, .. times how far apart elements of
 * each axis are there to the same sum in the output. There are two axes at least.
 */
typedef struct {
    int32_t axes, constants;
    int64_t first_x, first_y; /* floats before the first element, in the input and in the output */
    const int64_t *axis;      /* [axes, 3]: how many, and floats from one to the next in the input and in the output */
    const float *constant;    /* [constants], which takes the place of the input; or null */
} sparsec_copy;

/*
 * What is done to every element v of an output, with an operand w. X(name, meaning); a and b are numbers of the operation.
 */
#define SPARSEC_FUNCTIONS(X) \
    X(clamp, "min(max(v, a), b)") \
    X(leaky, "v < 0 ? a v : v") \
    X(add, "v + w") \
    X(subtract, "v - w") \
    X(subtract_from, "w - v") \
    X(multiply, "v w") \
    X(divide, "v / w") \
    X(divide_into, "w / v") \
    X(maximum, "max(v, w)") \
    X(minimum, "min(v, w)") \
    X(prelu, "v < 0 ? v w : v") \
    X(sigmoid, "1 / (1 + exp(-v))") \
    X(tanh, "tanh(v)") \
    X(silu, "v / (1 + exp(-v))") \
    X(hard_sigmoid, "min(max(a v + b, 0), 1)") \
    X(gelu, "v (1 + erf(v / sqrt(2))) / 2") \
    X(gelu_tanh, "gelu with tanh") \
    X(elu, "v < 0 ? a (exp(v) - 1) : v") \
    X(selu, "the same with its own scales") \
    X(softplus, "log(1 + exp(v))") \
    X(softsign, "v / (1 + |v|)") \
    X(exp, "exp(v)") \
    X(log, "log(v)") \
    X(sqrt, "sqrt(v)") \
    X(abs, "|v|") \
    X(erf, "erf(v)") \
    X(equal, "v == w ? 1 : 0") \
    X(greater, "v > w ? 1 : 0") \
    X(less, "v < w ? 1 : 0") \
    X(keep, "w == 0 ? 0 : v")

enum {
#define SPARSEC_ENTRY(name, meaning) SPARSEC_FN_##name,
    SPARSEC_FUNCTIONS(SPARSEC_ENTRY)
#undef SPARSEC_ENTRY
};

/* What the operand of an operation is. */
enum {
    SPARSEC_NUMBER,  /* the number a */
    SPARSEC_CHANNEL, /* a constant for each channel */
    SPARSEC_VALUE,   /* a value of the same positions */
    SPARSEC_GATE,    /* a value with one position for each sample */
};

/* What is computed of the elements of a pool. */
enum { SPARSEC_GREATEST, SPARSEC_MEAN };

typedef struct {
    int32_t function, operand;
    float a, b;
    const float *channel;
    sparsec_value value;
} sparsec_post;

/*
 * A step: y = posts(clamp(kernel(x) + bias + residual)). Those that are not weighted begin at the kernel, with no bias.
 * What `weights`, `window`, `options` and `numbers` mean depends on the kernel.
 */
typedef struct {
    int32_t kernel;
    int32_t posts;            /* how many there are */
    int32_t pieces;           /* of the weights; each has the rows that follow those of the one before */
    int32_t options[6];
    float low, high;          /* the clamp; not a number stays what it is */
    float numbers[4];
    const sparsec_post *post;
    const void *weights;
    const float *bias;
    const float *scale, *shift; /* for each channel of x; null where there is none */
    sparsec_window window;
    sparsec_value x, y, residual, extra, mask;
} sparsec_step;

/*
 * X(kernel) for every kernel.
 *
 *   product    x times a sparse matrix, position by position: weights is sparsec_matrix[pieces], each for some of the rows;
 *              options[0] is the most lines of a tile, 0 for as many as there can be; options[1] is 1
 *              where panels are copied; extra is a value with one position by whose rows those of x are multiplied before,
 *              or none; where there is a scale, min(max(x scale + shift, numbers[0]), numbers[1]) takes the place of x
 *   windows    a convolution; weights as in product, with a tap for each element of the window, and columns as windows.c says;
 *              options say how columns of y beside those that whole lines cover are cut: of the first options[0] of them,
 *              options[1] is the number of strips, and options[2] of lines side by side; options[3] and [4] are those of the others
 *   sliding    a convolution without strides; weights as in unrolled; where extra is a value, it is given the pools of two rows
 *              and two columns of y, options[1] says which, y is nowhere, and neither residual nor posts have values
 *   direct     a convolution; weights is one sparsec_filters, of at most 6 rows in a group where there are 16 registers
 *   winograd   a convolution without strides, with windows of 3x3 or 5x5; weights is one sparsec_filters as in direct, but with
 *              taps [points, width], and columns [points, channels, width]; winograd.c says which points; extra and options[1] as
 *              in sliding, and then there is no residual
 *   unrolled   a convolution; weights as in product, with a tap for each element of the window; options as in product
 *              (neither this nor product computes values with one position)
 *   vector     x, which has one position, times a sparse matrix
 *   slices     the same, where weights is sparsec_slices[pieces]
 *   dense      the same, where weights is one sparsec_filters, of at most as many rows in a group as a vector has lanes
 *   depthwise  a depthwise convolution; weights is [channels of y, taps] dense; options[0] is the multiplier
 *   max_pool   the greatest of a window; what lies outside does not count
 *   avg_pool   the mean of what of a window lies inside
 *   reduce     over the positions of each sample; options[0] is 0 for the mean, 1 for the sum, 2 for the greatest; over the
 *              channels of each position, for which y has one, where it is 3 for the greatest, 4 for the mean, 5 for the sum
 *   map        y = x, with zeros around it where window.pad says so, or every stride-th position, or else with a scale as in
 *              product, then the posts
 *   softmax    over the channels; its logarithm where options[0] is 1; y may be where x is
 *   normalise  over the channels: (x - mean) / sqrt(variance + numbers[0]); y may be where x is
 *   resize     options[0] is 0 for the nearest, 1 for bilinear interpolation
 *   load       from channels-last memory
 *   store      to channels-last memory
 *   flatten    [samples, height, width, channels] to [samples, height * width * channels]
 *   unflatten  back
 *   select     some rows and columns of positions: options are the first row, rows from one to the next, and the same of
 *              columns; both steps may be negative
 *   interleave position (i, j) of channel c is position (i / stride_height, j / stride_width) of channel p * channels of y + c of x,
 *              where p is i % stride_height * stride_width + j % stride_width
 *   recurrent  all steps of a recurrent cell; recurrent.c says what options, bias, residual, extra and mask are
 *   gather     rows of a table: y is [.., channels of x, channels], and x says which; weights is [options[0], channels of y]
 *              dense, and every number of x is a whole one, not less than -options[0] and less than options[0]
 *   copy       elements of x, or of constants, in another order: weights is one sparsec_copy; other elements of y stay, and
 *              nothing follows it
 *   matmul     for each row of positions of each sample, y[n, h, i, j] is the sum of x[n, h, i, k] extra[n, h, k, j] over k; one
 *              of x and extra may have a single row for all of y
 *   attention  attention.c says what options, numbers, residual, extra and mask are
 */
#define SPARSEC_KERNELS(X) \
    X(product) \
    X(windows) \
    X(unrolled) \
    X(vector) \
    X(slices) \
    X(map) \
    X(load) \
    X(store) \
    X(flatten) \
    X(unflatten) \
    X(depthwise) \
    X(max_pool) \
    X(avg_pool) \
    X(reduce) \
    X(softmax) \
    X(normalise) \
    X(resize) \
    X(select) \
    X(recurrent) \
    X(direct) \
    X(sliding) \
    X(dense) \
    X(interleave) \
    X(gather) \
    X(winograd) \
    X(copy) \
    X(matmul) \
    X(attention)

enum {
#define SPARSEC_ENTRY(kernel) SPARSEC_K_##kernel,
    SPARSEC_KERNELS(SPARSEC_ENTRY)
#undef SPARSEC_ENTRY
    SPARSEC_KERNEL_COUNT
};

/* Computes part `part` of `parts` of a step; scratch is aligned to 64 bytes and has the bytes that the kernel asks for. */
typedef void sparsec_run_step(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts);
typedef int64_t sparsec_count_bytes(const sparsec_step *s);

typedef struct {
    const char *name;
    sparsec_run_step *run;
    sparsec_count_bytes *bytes;
} sparsec_kernel;

/* A plan: the steps in order, and the kernels of one instruction set. */
typedef struct {
    int32_t steps, memories; /* how many; the arena is the first memory */
    const sparsec_step *step;
    const sparsec_kernel *kernels;
    int64_t arena;   /* bytes that the values take */
    int64_t scratch; /* bytes that each thread takes behind them, a multiple of 64 */
} sparsec_plan;

typedef struct sparsec_pool sparsec_pool;

/* A plan that is run `times` times; after each, memory i moves on by advance[i] floats. A pool runs it in several threads. */
typedef struct {
    const sparsec_plan *plan;
    float *const *memory;
    const int64_t *advance;
    int64_t times;
    sparsec_pool *pool;
} sparsec_call;

#endif
