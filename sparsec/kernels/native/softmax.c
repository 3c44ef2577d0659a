/*
 * Softmax and normalisation, which are over the channels of each position.
 *
 * Where there are many positions, a tile of them stays in the cache while it is gone over several times, and its padding may
 * take part; one position is a vector of channels. Both may run in place.
 */
#include "functions.h"
#include "sums.h"

enum {
    TILE = 4096, /* floats of x in a tile, if that is at least a line of each channel */
    BLOCK = 64,  /* channels whose terms are added up by themselves, so that the error of a sum stays small */
};

/* The terms of a sum over channels, and what is stored of them. */
enum { VALUES, SQUARES, EXPONENTIALS, SHIFTED };

static int64_t tile_width(const sparsec_step *s) {
    const int64_t width = TILE / s->x.channels / LINE * LINE;
    return width < LINE ? LINE : width;
}

/* A tile: positions first <= i < first + width of all channels. */
typedef struct {
    const float *x;
    ptrdiff_t pitch_x;
    float *y;
    ptrdiff_t pitch_y;
    int channels;
} tile;

/* The term of a channel, after which y is what `kind` says. */
INLINE vec term_of(const int kind, const tile *t, int c, int64_t i, vec shift) {
    const vec v = load(t->x + c * t->pitch_x + i) - shift;
    if (kind == VALUES) return v;
    const vec term = kind == SQUARES ? (vec)(v * v) : exponential(v);
    store(t->y + c * t->pitch_y + i, kind == EXPONENTIALS ? term : v);
    return term;
}

/*
 * The sums over the channels of one vector of positions. Of x - shift, `kind` says what is added up: itself, its square or its
 * exponential; y becomes that exponential, or x - shift where it is SQUARES or SHIFTED, which adds up exponentials too.
 */
INLINE vec add_channels(const int kind, const tile *t, int64_t i, vec shift) {
    vec sum = {0};
    for (int first = 0; first < t->channels; first += BLOCK) {
        const int stop = least(first + BLOCK, t->channels);
        /* Each addition waits for the one before, so there are several sums. */
        vec parts[4] = {{0}, {0}, {0}, {0}};
        int c = first;
        for (; c + 4 <= stop; c += 4) {
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) parts[k] += term_of(kind, t, c + k, i, shift);
        }
        for (; c < stop; c++) parts[0] += term_of(kind, t, c, i, shift);
        sum += (parts[0] + parts[1]) + (parts[2] + parts[3]);
    }
    return sum;
}

INLINE vec greatest_channel(const tile *t, int64_t i) {
    vec best = load(t->x + i);
    for (int c = 1; c < t->channels; c++) best = maximum(best, load(t->x + c * t->pitch_x + i));
    return best;
}

INLINE void scale_channels(const tile *t, int64_t i, vec factor, vec less) {
    for (int c = 0; c < t->channels; c++) {
        float *y = t->y + c * t->pitch_y + i;
        store(y, load(y) * factor - less);
    }
}

INLINE vec root(vec v) { return fn_sqrt(v, v, 0, 0); }

static void softmax_tile(const sparsec_step *s, const tile *t, int64_t width) {
    for (int64_t i = 0; i < width; i += LANES) {
        const vec best = greatest_channel(t, i);
        if (s->options[0]) scale_channels(t, i, splat(1), logarithm(add_channels(SHIFTED, t, i, best)));
        else scale_channels(t, i, 1.0f / add_channels(EXPONENTIALS, t, i, best), (vec){0});
    }
}

static void normalise_tile(const sparsec_step *s, const tile *t, int64_t width) {
    const float each = 1.0f / t->channels;
    for (int64_t i = 0; i < width; i += LANES) {
        const vec mean = add_channels(VALUES, t, i, (vec){0}) * each;
        const vec variance = add_channels(SQUARES, t, i, mean) * each;
        scale_channels(t, i, 1.0f / root(variance + s->numbers[0]), (vec){0});
    }
}

/* The same for `count` channels that follow one another; `terms` has room for as many. */
static void softmax_vector(const sparsec_step *s, const float *x, float *y, float *terms, int64_t count) {
    const float best = greatest_of(x, count);
    for (int64_t i = 0; i < count; i += LANES) {
        const lanes which = lanes_of(0, count - i < LANES ? (int)(count - i) : LANES);
        store_lanes(terms + i, exponential(load_lanes(x + i, which) - best), which);
    }
    const double sum = sum_of(terms, count);
    if (s->options[0]) {
        const float less = logarithm(splat((float)sum))[0];
        for (int64_t i = 0; i < count; i++) y[i] = x[i] - best - less;
    } else {
        const float factor = (float)(1 / sum);
        for (int64_t i = 0; i < count; i++) y[i] = terms[i] * factor;
    }
}

static void normalise_vector(const sparsec_step *s, const float *x, float *y, float *terms, int64_t count) {
    const float mean = (float)(sum_of(x, count) / (double)count);
    for (int64_t i = 0; i < count; i++) terms[i] = (x[i] - mean) * (x[i] - mean);
    const float variance = (float)(sum_of(terms, count) / (double)count);
    const float factor = 1.0f / root(splat(variance + s->numbers[0]))[0];
    for (int64_t i = 0; i < count; i++) y[i] = (x[i] - mean) * factor;
}

typedef void tile_runner(const sparsec_step *s, const tile *t, int64_t width);
typedef void vector_runner(const sparsec_step *s, const float *x, float *y, float *terms, int64_t count);

static void run(
    tile_runner *run_tile, vector_runner *run_vector, const sparsec_step *s, float *const *memory, void *scratch, int part, int parts
) {
    const int64_t count = positions(&s->x), width = tile_width(s), tiles = (count + width - 1) / width;
    const int channels = s->x.channels;
    if (count == 1) {
        if (part) return;
        run_vector(s, row_of(&s->x, memory, 0), row_of(&s->y, memory, 0), scratch, channels);
        if (finishes(s)) NAME(finish_vector)(s, memory, 0, channels);
        return;
    }
    for (int64_t i = share(tiles, part, parts); i < share(tiles, part + 1, parts); i++) {
        const int64_t first = i * width, rest = count - first < width ? count - first : width;
        const tile t = {row_of(&s->x, memory, 0) + first, s->x.pitch, row_of(&s->y, memory, 0) + first, s->y.pitch, channels};
        run_tile(s, &t, round_up(rest, LANES));
        if (!finishes(s)) continue;
        if (clamps(s)) for (int row = 0; row < channels; row++) NAME(finish)(s, memory, row, first, rest);
        else NAME(post_rows)(s, memory, 0, channels, first, rest);
    }
}

int64_t SIZE(softmax)(const sparsec_step *s) { return positions(&s->x) == 1 ? (int64_t)sizeof(float) * s->x.channels : 0; }

void NAME(softmax)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    run(softmax_tile, softmax_vector, s, memory, scratch, part, parts);
}

int64_t SIZE(normalise)(const sparsec_step *s) { return SIZE(softmax)(s); }

void NAME(normalise)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    run(normalise_tile, normalise_vector, s, memory, scratch, part, parts);
}
